#ifndef KDN_TRANSFER_LOCAL_FETCH_H_
#define KDN_TRANSFER_LOCAL_FETCH_H_

#include <functional>
#include <memory>
#include <optional>

#include "delivery/peer_transport.h"
#include "transfer/chunk_decode.h"
#include "transfer/work_pool.h"

namespace kdn::transfer {

// Delivers one chunk of a retrieve from an object in this node's memory: one
// layer at a time on the pool, each layer queueing the next, so that the chunks
// of a retrieve advance together and the queue holds one task per chunk. It
// comes at the best level held and accepted that is decoded faster than the
// engine prefills, or is to be recomputed, whatever other copies hold;
// NOT_FOUND when held at no accepted one.
// Reports the end of the try exactly once, on a pool thread.
void FetchFromMemory(std::shared_ptr<RetrieveContext> context, int chunk,
                     delivery::PeerService::Held held,
                     std::optional<ObjectVersion> pinned, WorkPool* pool,
                     RequesterId requester,
                     delivery::Done<delivery::AttemptResult> on_attempt);

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_LOCAL_FETCH_H_
