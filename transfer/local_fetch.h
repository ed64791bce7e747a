#ifndef KDN_TRANSFER_LOCAL_FETCH_H_
#define KDN_TRANSFER_LOCAL_FETCH_H_

#include <functional>
#include <memory>
#include <optional>

#include "delivery/peer_transport.h"
#include "transfer/chunk_decode.h"
#include "transfer/work_pool.h"

namespace kdn::transfer {

// Delivers one chunk of a retrieve from an object in this node's memory.
// Decodes one layer at a time on the pool. Each layer posts the next one, so
// that the chunks of a retrieve advance together and the queue holds one task
// per chunk.
//
// The chunk is delivered at the best accepted level of the object that is
// decoded faster than the engine prefills. If every accepted level is slower,
// the engine recomputes the chunk; other copies are not considered. NOT_FOUND
// when the object has no accepted level.
//
// Reports the end of the try exactly once, on a pool thread.
void FetchFromMemory(std::shared_ptr<RetrieveContext> context, int chunk,
                     delivery::PeerService::Held held,
                     std::optional<ObjectVersion> pinned, WorkPool* pool,
                     RequesterId requester,
                     delivery::Done<delivery::AttemptResult> on_attempt);

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_LOCAL_FETCH_H_
