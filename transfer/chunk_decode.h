#ifndef KDN_TRANSFER_CHUNK_DECODE_H_
#define KDN_TRANSFER_CHUNK_DECODE_H_

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "codec/decoder.h"
#include "codec/format/object.h"
#include "delivery/decode_rates.h"
#include "delivery/fetch_session.h"
#include "delivery/node_service.h"
#include "kv/clock.h"
#include "transfer/decode_book.h"

namespace kdn::transfer {

// What a node decodes with. Not owned.
struct DecodeMeans {
  codec::CalibrationSet* calibrations = nullptr;
  DecodeBook* book = nullptr;
  const Clock* clock = nullptr;  // that the book is kept by
};

// What every chunk of one retrieve shares while it is delivered.
struct RetrieveContext {
  const delivery::RetrieveRequest request;
  const ModelFingerprint fingerprint;
  const delivery::NodeService::OnLayer on_layer;
  const DecodeMeans means;
  const delivery::DecodeRates decode_rates;  // when the retrieve began
  // Take longer to decode than to recompute: not used.
  const LevelSet too_slow;
  // announced[chunk] holds, per layer of the slice, 1 + the level at which it
  // was announced, 0 where it was not. Only the chunk's present try writes
  // there, and tries of one chunk never overlap.
  std::vector<std::vector<uint8_t>> announced;

  RetrieveContext(delivery::RetrieveRequest request,
                  delivery::NodeService::OnLayer on_layer,
                  const DecodeMeans& means);
};

// One try to deliver one chunk from one object: decodes its layers, on as many
// threads as the driver likes, announces each, and reports the try's end once
// all of them are accounted for. Every layer is accounted for exactly once, by
// Decode or by Skip; the last one calls `done`. Thread-safe.
class ChunkDecode {
 public:
  // `pinned`: the only version that may be delivered, if one is; FAILED_
  // PRECONDITION when the object is of another, or was coded with a calibration
  // that is not here: it is sound all the same. DATA_LOSS when it is not the
  // chunk asked for, INVALID_ARGUMENT when it is of another model or the
  // positions do not fit, NOT_FOUND when it is not held at one of `levels`, of
  // each layer of the slice, or that is not accepted. On error `done` is not
  // called.
  static absl::StatusOr<std::shared_ptr<ChunkDecode>> Create(
      std::shared_ptr<RetrieveContext> context, int chunk,
      codec::ObjectIndex index, std::vector<Level> levels, Tier tier,
      std::optional<ObjectVersion> pinned,
      delivery::Done<delivery::AttemptResult> done);

  // The layer counts from the slice's first; `streams` as ObjectDecoder takes.
  // A layer that an earlier try announced is left alone: the engine may be
  // reading it, and it was verified.
  void Decode(int layer, absl::Span<const std::byte> streams);
  // The same from a whole object in memory.
  void DecodeOf(int layer, absl::Span<const std::byte> object);
  // `layers` layers will never come.
  void Skip(int layers, const absl::Status& why);
  // Bytes that crossed between nodes for this try.
  void AddWireBytes(uint64_t bytes) { wire_bytes_ += bytes; }

  const codec::ObjectIndex& index() const { return index_; }

 private:
  ChunkDecode(std::shared_ptr<RetrieveContext> context, int chunk,
              codec::ObjectIndex index, std::vector<Level> levels, Tier tier,
              delivery::Done<delivery::AttemptResult> done);
  bool wanted() const;
  const KvDestination& destination() const {
    return context_->request.chunks[chunk_].destination;
  }
  bool IsAnnounced(int layer) const {
    return context_->announced[chunk_][layer] != 0;
  }
  // `decode` writes the layer.
  void DecodeWith(int layer, absl::FunctionRef<absl::Status()> decode);
  void Account(int layer, const absl::Status& status);
  void Finish(int layers, const absl::Status& status);

  const std::shared_ptr<RetrieveContext> context_;
  const int chunk_;
  const codec::ObjectIndex index_;
  const std::vector<Level> levels_;  // by layer of the slice
  const Tier tier_;
  std::optional<codec::ObjectDecoder> decoder_;
  std::atomic<uint64_t> wire_bytes_{0};
  std::atomic<bool> announced_{false};
  std::atomic<bool> failed_{false};
  absl::Mutex mutex_;
  int remaining_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  delivery::Done<delivery::AttemptResult> done_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_CHUNK_DECODE_H_
