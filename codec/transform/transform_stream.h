#ifndef KDN_CODEC_TRANSFORM_TRANSFORM_STREAM_H_
#define KDN_CODEC_TRANSFORM_TRANSFORM_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/stream_codec.h"

namespace kdn::codec {

// The bytes of a transform-coded stream; each level has a stream of its own.
// docs/formats.md has the layout. A stream has one of three forms. kCoded:
// symbols. kRows, at the base level only: the rows themselves in bf16, because
// coding them would take more bytes. kNothing, at a refining level only: no
// data, because refining would take more bytes than the level may. After a
// level of kRows or kNothing, all further levels have kNothing.
enum class StreamForm : uint8_t { kCoded = 0, kRows = 1, kNothing = 2 };

// A correction of one value that the table has no symbol for. It is added to
// the value that the zero symbol gives.
struct Patch {
  uint16_t token = 0;
  uint16_t component = 0;  // or StreamFrame::components + a wide component
  int8_t value = 0;
};

// The parts of one level of a stream. Points into the stream's bytes.
struct StreamParts {
  StreamForm form = StreamForm::kCoded;
  // The stream's own scale and mean, at the base level of a frame with
  // own_statistics. 1 and empty elsewhere.
  float gain = 1.0f;
  absl::Span<const std::byte> mean;  // bf16, one per dimension
  // The raw tokens, ascending, and their rows in bf16. In the form kRows there
  // are the rows of all tokens, and raw_tokens is empty.
  std::vector<uint16_t> raw_tokens;
  absl::Span<const std::byte> raw_rows;
  // The class of each token, at the base level; see StreamTransform::classes.
  std::vector<uint8_t> token_classes;
  std::vector<Patch> patches;
  absl::Span<const std::byte> symbols;
};

// What a reader and a writer must know about a stream.
struct StreamFrame {
  int tokens = 0;
  int dim = 0;  // of all heads
  int components = 0;
  int columns = 0;  // the values of a token: components and high parts
  int classes = 1;  // that tokens may have
  bool own_statistics = false;
  int step = 0;  // of the ladder; 0: base

  size_t row_bytes() const { return static_cast<size_t>(dim) * 2; }
};

// The bytes of a coded stream without its symbols, for so many raw tokens and
// patches.
size_t PartsBytes(const StreamFrame& frame, size_t raw_tokens, size_t patches);

// Takes a stream apart. DATA_LOSS unless all parts are complete and inside the
// frame, and scale, mean and rows are finite. Allocates in proportion to
// `stream`.
absl::StatusOr<StreamParts> ReadParts(const StreamFrame& frame,
                                      absl::Span<const std::byte> stream);
// Writes everything but the symbols; returns the bytes written.
size_t WriteParts(const StreamFrame& frame, const StreamParts& parts,
                  absl::Span<std::byte> out);

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_TRANSFORM_STREAM_H_
