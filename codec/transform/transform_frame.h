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
          .own_statistics = transform.mean.empty()};
}

// The parts of one level of a stream that was coded with `transform`. DATA_LOSS
// as for ReadParts, and when a patch is in a band that the level does not code,
// because decoders skip such bands.
inline absl::StatusOr<StreamParts> ReadLevel(
    const StreamFrame& frame, const StreamTransform& transform,
    absl::Span<const std::byte> stream) {
  absl::StatusOr<StreamParts> parts = ReadParts(frame, stream);
  if (!parts.ok()) return parts;
  for (const Patch& patch : parts->patches) {
    const auto& steps = transform.bands[patch.component / kBandComponents];
    if (steps[frame.step].mode == BandMode::kAbsent) {
      return absl::DataLossError(
          "a transform-coded stream patches a band that it does not code");
    }
  }
  return parts;
}

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_TRANSFORM_FRAME_H_
