#ifndef KDN_CODEC_DECODER_H_
#define KDN_CODEC_DECODER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "codec/format/object.h"
#include "codec/kernels/isa.h"
#include "codec/kernels/k_rotations.h"
#include "codec/stream_codec.h"
#include "kv/kv_destination.h"
#include "kv/kv_view.h"

namespace kdn::codec {

// Decodes streams of one object to the positions a reader wants, straight into
// the reader's memory, pages included. Verifies each stream's CRC as it goes
// (the bytes are read once: checked while they are in cache). Thread-safe:
// layers may be decoded by several threads at once. Movable. Keeps a reference
// to `index`, which must outlive it.
class ObjectDecoder {
 public:
  // INVALID_ARGUMENT unless there is one position per token, none negative.
  // UNIMPLEMENTED when CheckSupported says so of the object's header.
  // `calibration` is what CalibrationSet::ForObject gives for the object; it
  // may be null where no transform-coded level will be decoded.
  static absl::StatusOr<ObjectDecoder> Create(
      const ObjectIndex* index, std::shared_ptr<const Calibration> calibration,
      absl::Span<const int32_t> positions, Isa isa = BestIsa());

  // Decodes one layer of heads [head_begin, head_end). `streams` is the
  // concatenation of ObjectIndex::LayerRanges(level, layer, head_begin,
  // head_end). `destination` shows one layer of heads head_end - head_begin,
  // all tokens, the object's dtype. DATA_LOSS when a stream fails its checksum
  // (the destination may then hold garbage and must not be used);
  // INVALID_ARGUMENT when the destination's shape does not fit.
  absl::Status DecodeLayer(Level level, int layer, int head_begin, int head_end,
                           absl::Span<const std::byte> streams,
                           const KvDestination& destination) const;

  // The same, picking the streams out of a whole object.
  absl::Status DecodeLayerOf(absl::Span<const std::byte> object, Level level,
                             int layer, int head_begin, int head_end,
                             const KvDestination& destination) const;

 private:
  ObjectDecoder(const ObjectIndex* index,
                std::shared_ptr<const Calibration> calibration,
                absl::Span<const int32_t> positions, Isa isa);

  absl::Status CheckCall(Level level, int layer, int head_begin, int head_end,
                         const KvShape& destination) const;
  // Where a slice's streams are, in the order StreamsOf, each with its bytes at
  // every level of a ladder.
  struct Found;
  absl::Status DecodeFound(absl::Span<const Found> found,
                           absl::Span<const Level> ladder, int head_begin,
                           int head_end,
                           const KvDestination& destination) const;
  // DATA_LOSS when the bytes cannot be such a stream's.
  absl::Status CheckLengths(const Found& found,
                            absl::Span<const Level> ladder) const;
  // What comes out of a stream that was decoded: damage explains whatever the
  // codec said.
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
