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

// What a node needs to decode. Not owned.
struct DecodeMeans {
  codec::CalibrationSet* calibrations = nullptr;
  DecodeBook* book = nullptr;
  const Clock* clock = nullptr;  // the book's times are of this clock
};

// What the chunks of one retrieve share while they are delivered.
struct RetrieveContext {
  const delivery::RetrieveRequest request;
  const ModelFingerprint fingerprint;
  const delivery::NodeService::OnLayer on_layer;
  const DecodeMeans means;
  const delivery::DecodeRates decode_rates;  // when the retrieve began
  // The levels that are not used, because decoding takes longer than
  // recomputing.
  const LevelSet too_slow;
  // announced[chunk][layer of the slice] is 1 + the level at which the layer
  // was announced; 0: not announced. Only the present try of a chunk writes
  // here, and tries of one chunk never overlap.
  std::vector<std::vector<uint8_t>> announced;

  RetrieveContext(delivery::RetrieveRequest request,
                  delivery::NodeService::OnLayer on_layer,
                  const DecodeMeans& means);
};

// One try to deliver one chunk from one object. It decodes the layers, on any
// number of threads, and announces each layer. Every layer ends exactly once,
// by Decode, DecodeOf or Skip; the end of the last layer calls `done`.
// Thread-safe.
class ChunkDecode {
 public:
  // `levels`: the level of each layer of the slice. `pinned`: the only version
  // that may be delivered; unset: any.
  //
  // FAILED_PRECONDITION when the object has another version, or when its
  // calibration is not on this node; the object is not damaged then. DATA_LOSS
  // when the object is not of the requested chunk. INVALID_ARGUMENT when the
  // object is of another model or the positions do not fit. NOT_FOUND when the
  // object does not have one of `levels`, or the retrieve does not accept it.
  // On an error `done` is not called.
  static absl::StatusOr<std::shared_ptr<ChunkDecode>> Create(
      std::shared_ptr<RetrieveContext> context, int chunk,
      codec::ObjectIndex index, std::vector<Level> levels, Tier tier,
      std::optional<ObjectVersion> pinned,
      delivery::Done<delivery::AttemptResult> done);

  // Decodes a layer from its streams (see ObjectDecoder::DecodeLayer). `layer`
  // counts from the slice's first layer. Does not touch a layer that an earlier
  // try announced: it was verified, and the engine may be reading it.
  void Decode(int layer, absl::Span<const std::byte> streams);
  // The same from a whole object in memory.
  void DecodeOf(int layer, absl::Span<const std::byte> object);
  // Ends `layers` layers that will never come.
  void Skip(int layers, const absl::Status& why);
  // Counts bytes that crossed between nodes for this try.
  void AddWireBytes(uint64_t bytes) { wire_bytes_ += bytes; }

  const codec::ObjectIndex& index() const { return index_; }

 private:
  ChunkDecode(std::shared_ptr<RetrieveContext> context, int chunk,
              codec::ObjectIndex index, std::vector<Level> levels, Tier tier,
              delivery::Done<delivery::AttemptResult> done);
  // False when the try has failed or the retrieve was cancelled.
  bool wanted() const;
  const KvDestination& destination() const {
    return context_->request.chunks[chunk_].destination;
  }
  bool IsAnnounced(int layer) const {
    return context_->announced[chunk_][layer] != 0;
  }
  // Decodes a layer with `decode`, if the layer is still needed, and ends it.
  void DecodeWith(int layer, absl::FunctionRef<absl::Status()> decode);
  // Announces the layer if it was decoded, and ends it.
  void Account(int layer, const absl::Status& status);
  // Ends `layers` layers; the last one calls done_.
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
