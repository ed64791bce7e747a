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

// Most bytes that one chunk of the retrieve takes while it is fetched: streams
// of the accepted levels, in whole pages of an arena.
uint64_t FetchBytesMax(const delivery::RetrieveRequest& request);

// Receives some chunks of a retrieve from one peer and decodes them: each layer
// on the pool, as soon as its bytes are in place. The encoded bytes live in
// blocks of `scratch` until the chunk's try ends, not a moment longer: whoever
// hears of that end may count on the memory.
//
// Reports the end of each chunk's try exactly once, whatever the peer does.
// Times what comes: so the link's rate and the peer's health are learnt.
class RemoteFetch final : public delivery::FetchSink {
 public:
  // Any thread; (chunk, result).
  using OnAttempt = std::function<void(int, delivery::AttemptResult)>;
  // (chunk, bytes of `scratch` that it takes), before the end of its try.
  using OnSize = std::function<void(int, uint64_t)>;

  // Where it comes from, and what was expected of that.
  struct Link {
    NodeId peer;
    delivery::DeliveryTarget target;
    LinkBook* book = nullptr;
    HealthBook* health = nullptr;
    const Clock* clock = nullptr;
  };

  RemoteFetch(std::shared_ptr<RetrieveContext> context,
              std::vector<delivery::ChunkWanted> items, Link link,
              storage::Arena* scratch, WorkPool* pool, RequesterId requester,
              OnSize on_size, OnAttempt on_attempt);

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
    bool reported = false;  // its end was reported without a decode
  };
  // Shared with the chunks' tries: counts what came of the fetch when its bytes
  // and its decoding have ended, whichever is later.
  class Reckoning;
  int TokensOf(int i) const;
  absl::Duration DecodingOf(int i, absl::Span<const Level> levels) const;
  void Report(int i, delivery::AttemptResult result);
  void ReportError(int i, const absl::Status& why);
  // The peer said something: the first time, its latency is known.
  void NoteAnswer(absl::Time now);
  // Tells the book what came of what was planned.
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
  delivery::LevelPlan plan_;  // what the peer made of the budget
  absl::Duration decoding_;   // as predicted, of what is loaded
  const absl::Time began_;
  bool answered_ = false;
  bool skipped_ = false;
  uint64_t bytes_ = 0;
  int layers_owed_ = 0;  // by the peer, of what it said that it holds
  absl::Time first_;     // when the first of them was due, later by every pause
  absl::Time last_;
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_REMOTE_FETCH_H_
