#ifndef KDN_CODEC_TRANSFORM_TRANSFORM_STREAM_H_
#define KDN_CODEC_TRANSFORM_TRANSFORM_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/stream_codec.h"

namespace kdn::codec {

// The bytes of a transform-coded stream, one per level; docs/formats.md has
// them. Three forms: coded symbols; at the base level the rows themselves in
// bf16, where coding them would take more; at a refining level nothing, where
// refining would take more than it is worth, and then at those behind it too.
enum class StreamForm : uint8_t { kCoded = 0, kRows = 1, kNothing = 2 };

// A value that its table has no symbol for.
struct Patch {
  uint16_t token = 0;
  uint8_t component = 0;
  int8_t value = 0;
};

// One level of a stream, taken apart. Refers to the stream's bytes.
struct StreamParts {
  StreamForm form = StreamForm::kCoded;
  // Of streams that bring their own statistics; else 1 and empty.
  float gain = 1.0f;
  absl::Span<const std::byte> mean;  // bf16, a dimension each
  // Tokens whose rows are kept as they are, ascending, and the rows in bf16.
  std::vector<uint16_t> raw_tokens;
  absl::Span<const std::byte> raw_rows;
  std::vector<Patch> patches;
  absl::Span<const std::byte> symbols;
};

// What the parts of a stream follow from.
struct StreamFrame {
  int tokens = 0;
  int dim = 0;  // of all heads
  int components = 0;
  bool own_statistics = false;
  int step = 0;  // 0: base

  size_t row_bytes() const { return static_cast<size_t>(dim) * 2; }
};

// Bytes of everything but the symbols, for so many raw tokens and patches.
size_t PartsBytes(const StreamFrame& frame, size_t raw_tokens, size_t patches);

// DATA_LOSS unless the parts are all there and inside the frame. What is
// allocated is in proportion to `stream`.
absl::StatusOr<StreamParts> ReadParts(const StreamFrame& frame,
                                      absl::Span<const std::byte> stream);
// Writes everything but the symbols; returns the bytes written.
size_t WriteParts(const StreamFrame& frame, const StreamParts& parts,
                  absl::Span<std::byte> out);

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_TRANSFORM_STREAM_H_
