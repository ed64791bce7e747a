#ifndef KDN_CODEC_DECODER_H_
#define KDN_CODEC_DECODER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "codec/format/object.h"
#include "codec/kernels/k_rotations.h"
#include "codec/stream_codec.h"
#include "kv/isa.h"
#include "kv/kv_destination.h"
#include "kv/kv_view.h"

namespace kdn::codec {

// Decodes streams of one object to the positions that a reader wants, directly
// into the reader's memory, strided or paged. Checks each stream's CRC while it
// decodes, so that the bytes are read from memory once. Thread-safe: several
// threads may decode layers at once. Movable. Keeps a pointer to `index`, which
// must outlive the decoder.
class ObjectDecoder {
 public:
  // INVALID_ARGUMENT unless there is one position for each token and none is
  // negative. UNIMPLEMENTED if CheckSupported refuses the object's header.
  // `calibration` is the result of CalibrationSet::ForObject; it may be null if
  // no transform-coded level will be decoded.
  static absl::StatusOr<ObjectDecoder> Create(
      const ObjectIndex* index, std::shared_ptr<const Calibration> calibration,
      absl::Span<const int32_t> positions, Isa isa = BestIsa());

  // Decodes one layer of heads [head_begin, head_end). `streams` are the bytes
  // of ObjectIndex::LayerRanges(level, layer, head_begin, head_end), one range
  // after the other. `destination` has one layer, head_end - head_begin heads,
  // all tokens and the object's dtype. DATA_LOSS when a stream fails its
  // checksum or cannot be decoded; the destination then holds garbage.
  // INVALID_ARGUMENT when the object has no such level, layer or heads, or the
  // destination has another shape.
  absl::Status DecodeLayer(Level level, int layer, int head_begin, int head_end,
                           absl::Span<const std::byte> streams,
                           const KvDestination& destination) const;

  // The same, from the bytes of a whole object.
  absl::Status DecodeLayerOf(absl::Span<const std::byte> object, Level level,
                             int layer, int head_begin, int head_end,
                             const KvDestination& destination) const;

 private:
  ObjectDecoder(const ObjectIndex* index,
                std::shared_ptr<const Calibration> calibration,
                absl::Span<const int32_t> positions, Isa isa);

  absl::Status CheckCall(Level level, int layer, int head_begin, int head_end,
                         const KvShape& destination) const;
  // A stream of a slice, with its bytes at every level of a ladder.
  struct Found;
  // Decodes streams that are in the order of StreamsOf.
  absl::Status DecodeFound(absl::Span<const Found> found,
                           absl::Span<const Level> ladder, int head_begin,
                           int head_end,
                           const KvDestination& destination) const;
  // DATA_LOSS when a stream's length is one that its level never gives.
  absl::Status CheckLengths(const Found& found,
                            absl::Span<const Level> ladder) const;
  // The status of a stream after decoding: DATA_LOSS if a checksum is wrong,
  // whatever the codec returned, else the codec's status.
  absl::Status Judge(const Found& found, absl::Span<const Level> ladder,
                     absl::Span<StreamReader> readers,
                     const absl::Status& decoded) const;
  StreamContext ContextOf(const StreamId& id) const;

  const ObjectIndex* index_;
  std::shared_ptr<const Calibration> calibration_;
  std::unique_ptr<const KRotations> rotations_;
  Isa isa_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_DECODER_H_
