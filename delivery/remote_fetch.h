#ifndef KDN_DELIVERY_REMOTE_FETCH_H_
#define KDN_DELIVERY_REMOTE_FETCH_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "delivery/chunk_decode.h"
#include "delivery/fetch_session.h"
#include "delivery/peer_transport.h"
#include "delivery/work_pool.h"
#include "storage/arena.h"

namespace kdn::delivery {

// Most bytes that one chunk of the retrieve takes while it is fetched: streams
// of the accepted levels, in whole pages of an arena.
uint64_t FetchBytesMax(const RetrieveRequest& request);

// Receives some chunks of a retrieve from one peer and decodes them: each layer
// on the pool, as soon as its bytes are in place. The encoded bytes live in
// blocks of `scratch` until the chunk's try ends, not a moment longer: whoever
// hears of that end may count on the memory.
//
// Reports the end of each chunk's try exactly once, whatever the peer does.
class RemoteFetch final : public FetchSink {
 public:
  struct Item {
    int chunk = 0;  // in the retrieve
    std::optional<ObjectVersion> pinned;
  };
  // Any thread; (chunk, result).
  using OnAttempt = std::function<void(int, AttemptResult)>;

  RemoteFetch(std::shared_ptr<RetrieveContext> context, std::vector<Item> items,
              storage::Arena* scratch, WorkPool* pool, uint64_t work_request,
              OnAttempt on_attempt);

  absl::StatusOr<absl::Span<std::byte>> OnHit(int i, codec::ObjectIndex index,
                                              Level level, storage::Tier tier,
                                              uint64_t stream_bytes) override;
  void OnNoHit(int i, const absl::Status& why) override;
  void OnLayer(int i, int layer, absl::Span<const std::byte> streams) override;
  void OnDone(const absl::Status& status) override;

 private:
  struct Receiving {
    std::shared_ptr<ChunkDecode> decode;
    int layers_left = 0;
    bool reported = false;  // its end was reported without a decode
  };
  void Report(int i, const absl::Status& why);

  const std::shared_ptr<RetrieveContext> context_;
  const std::vector<Item> items_;
  storage::Arena* const scratch_;
  WorkPool* const pool_;
  const uint64_t work_request_;
  const OnAttempt on_attempt_;
  std::vector<Receiving> receiving_;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_REMOTE_FETCH_H_
