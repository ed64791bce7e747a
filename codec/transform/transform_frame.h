#ifndef KDN_CODEC_TRANSFORM_TRANSFORM_FRAME_H_
#define KDN_CODEC_TRANSFORM_TRANSFORM_FRAME_H_

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "codec/stream_codec.h"
#include "codec/transform/transform_stream.h"

namespace kdn::codec {

// The frame of a stream's base level.
inline StreamFrame FrameOf(const StreamShape& shape,
                           const StreamTransform& transform) {
  return {.tokens = shape.tokens,
          .dim = shape.heads * shape.head_dim,
          .components = transform.components(),
          .columns = transform.columns(),
          .classes = static_cast<int>(transform.classes.size()),
          .own_statistics = transform.mean.empty()};
}

// The parts of one level of a stream that was coded with `transform`.
// `token_classes` are those of the base level, if this is another level.
// DATA_LOSS as for ReadParts, and when a patch is in a band that the level does
// not code, because decoders skip such bands.
inline absl::StatusOr<StreamParts> ReadLevel(
    const StreamFrame& frame, const StreamTransform& transform,
    absl::Span<const std::byte> stream,
    absl::Span<const uint8_t> token_classes = {}) {
  absl::StatusOr<StreamParts> parts = ReadParts(frame, stream);
  if (!parts.ok()) return parts;
  if (frame.step == 0) token_classes = parts->token_classes;
  for (const Patch& patch : parts->patches) {
    const TokenClass& token_class =
        transform.classes[frame.classes == 1 ? 0 : token_classes[patch.token]];
    const auto& steps = token_class.bands[patch.component / kBandComponents];
    if (steps[frame.step].mode == BandMode::kAbsent) {
      return absl::DataLossError(
          "a transform-coded stream patches a band that it does not code");
    }
  }
  return parts;
}

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_TRANSFORM_FRAME_H_
