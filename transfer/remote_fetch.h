#ifndef KDN_TRANSFER_REMOTE_FETCH_H_
#define KDN_TRANSFER_REMOTE_FETCH_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "delivery/fetch_session.h"
#include "delivery/peer_transport.h"
#include "delivery/rate_control.h"
#include "kv/clock.h"
#include "storage/arena.h"
#include "transfer/chunk_decode.h"
#include "transfer/health_book.h"
#include "transfer/link_book.h"
#include "transfer/work_pool.h"

namespace kdn::transfer {

// The most bytes that one chunk of the retrieve takes while it is fetched: the
// streams of an accepted level, in whole pages of an arena.
uint64_t FetchBytesMax(const delivery::RetrieveRequest& request);

// Receives some chunks of a retrieve from one peer and decodes them: each layer
// on the pool, as soon as its bytes are in place. The encoded bytes of a chunk
// lie in a block of `scratch`, which is freed before the end of the chunk's try
// is reported.
//
// Reports the end of each chunk's try exactly once, whatever the peer does.
// Reports times to the LinkBook and the HealthBook, which learn the link's rate
// and the peer's health from them.
class RemoteFetch final : public delivery::FetchSink {
 public:
  // Any thread; (chunk, result).
  using OnAttempt = std::function<void(int, delivery::AttemptResult)>;
  // (chunk, bytes of `scratch` that it takes); before the end of its try.
  using OnSize = std::function<void(int, uint64_t)>;

  // The link that the chunks come over.
  struct Link {
    NodeId peer;
    delivery::DeliveryTarget target;  // the prediction is made from it
    LinkBook* book = nullptr;
    HealthBook* health = nullptr;
    const Clock* clock = nullptr;
  };

  RemoteFetch(std::shared_ptr<RetrieveContext> context,
              std::vector<delivery::ChunkWanted> items, Link link,
              storage::Arena* scratch, WorkPool* pool, RequesterId requester,
              OnSize on_size, OnAttempt on_attempt);

  void OnBegin() override;
  absl::StatusOr<absl::Span<std::byte>> OnHit(int i, codec::ObjectIndex index,
                                              std::vector<Level> levels,
                                              Tier tier,
                                              uint64_t stream_bytes) override;
  void OnRecompute(int i) override;
  void OnNoHit(int i, const absl::Status& why, ObjectVersion version) override;
  void OnLayer(int i, int layer, absl::Span<const std::byte> streams) override;
  void OnDone(const absl::Status& status) override;

 private:
  struct Receiving {
    std::shared_ptr<ChunkDecode> decode;
    int layers_left = 0;
    bool reported = false;  // its end was reported and `decode` is null
  };
  // Reports the delivery to the book once all bytes have come and are decoded.
  // Shared with the tries of the chunks.
  class Reckoning;
  int TokensOf(int i) const;
  absl::Duration DecodingOf(int i, absl::Span<const Level> levels) const;
  void Report(int i, delivery::AttemptResult result);
  void ReportError(int i, const absl::Status& why);
  // The peer sent a part of its answer. The time of the first part gives its
  // latency.
  void NoteAnswer(absl::Time now);
  // Tells the book how the fetch compares with its plan.
  void Settle(const absl::Status& status);

  const std::shared_ptr<RetrieveContext> context_;
  const std::vector<delivery::ChunkWanted> items_;
  const Link link_;
  storage::Arena* const scratch_;
  WorkPool* const pool_;
  const RequesterId requester_;
  const OnSize on_size_;
  const OnAttempt on_attempt_;
  std::vector<Receiving> receiving_;
  std::shared_ptr<Reckoning> reckoning_;
  delivery::LevelPlan plan_;         // the peer's plan, as far as it is known
  absl::Duration decoding_;          // predicted, of the loaded chunks
  std::optional<absl::Time> began_;  // OnBegin
  bool answered_ = false;
  bool skipped_ = false;
  uint64_t bytes_ = 0;
  int layers_owed_ = 0;  // announced by the peer and not yet come
  // When the first layer was due. Each pause in which no layer is owed moves it
  // on by the length of the pause.
  absl::Time first_;
  absl::Time last_;  // when the last layer came
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_REMOTE_FETCH_H_
