#ifndef KDN_CODEC_STREAM_CODEC_H_
#define KDN_CODEC_STREAM_CODEC_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "codec/format/stream_layout.h"
#include "codec/format/stream_reader.h"
#include "codec/kernels/row_rotation.h"
#include "codec/kernels/vector_kernels.h"
#include "kv/check.h"
#include "kv/dtype.h"
#include "kv/kv_destination.h"
#include "kv/kv_view.h"
#include "kv/level.h"

namespace kdn::codec {

// What one stream holds: the rows of the heads that share it, of one layer's K
// or V.
struct StreamShape {
  KvPart part = KvPart::kK;
  int heads = 1;
  int tokens = 0;
  int head_dim = 0;
  Dtype dtype = Dtype::kBf16;

  // Of one head.
  size_t row_bytes() const {
    return static_cast<size_t>(head_dim) * SizeOf(dtype);
  }
  size_t values() const {
    return static_cast<size_t>(heads) * tokens * head_dim;
  }
};

inline StreamShape StreamShapeOf(const KvShape& shape, const StreamId& id) {
  return {id.part, HeadsPerStream(shape, id.part, id.level), shape.tokens,
          shape.dim(id.part), shape.dtype};
}

// One head's rows in an engine's memory, `token_stride` bytes apart. Not owned.
struct Rows {
  const std::byte* base = nullptr;
  int64_t token_stride = 0;

  const std::byte* At(int token) const { return base + token * token_stride; }
};

inline Rows RowsOf(const KvView& layer_kv, KvPart part, int head) {
  return {layer_kv.At(0, part, head, 0), layer_kv.strides().token};
}

// In which form K is coded: as the engine rotated it, or before RoPE.
enum class KForm { kAsComputed, kBeforeRope };

// What a codec is told besides the rows.
struct StreamContext {
  // Turns each row of each head; null: they stay as they are.
  const RowRotation* rotation = nullptr;
  // Of the tokens, when their KV was computed; what an encoder is told.
  absl::Span<const int32_t> positions = {};
  // Of the stream, for the levels that are transform-coded.
  const StreamTransform* transform = nullptr;
  absl::Span<const FormatCoder::Table> tables;
  // What a decoder may use; all give the same bits.
  Isa isa = BestIsa();
  // Whether decoded rows are read again at once: then codecs whose errors
  // are measured do not write them past the caches.
  bool reads_rows = false;
};

// Writes a decoded row, past the caches unless it is read again.
inline void CopyDecoded(const StreamContext& context,
                        absl::Span<const std::byte> row, std::byte* to) {
  if (context.reads_rows) {
    std::memcpy(to, row.data(), row.size());
  } else {
    kernels::CopyOut(row.data(), row.size(), to);
  }
}

// One call of Decode.
struct StreamJob {
  StreamShape shape;
  absl::Span<StreamReader> steps;
  StreamContext context;
  absl::Span<const MutableRows> heads;
};

// Where a stream goes, and how much of the room it took.
struct StreamRoom {
  absl::Span<std::byte> room;
  size_t bytes = 0;
};

// The inside of a ladder of levels: turns the rows of the heads of a stream
// into one stream per level and back. The frame (object, encoder, decoder) owns
// offsets, lengths, checksums, measured errors and the choice of rotation and
// calibration; a codec sees rows only. A new level is a new implementation here
// and an entry in CodecOf. Stateless: any thread.
class StreamCodec {
 public:
  virtual ~StreamCodec() = default;

  virtual KForm k_form() const = 0;
  // Whether rows come back bit for bit where they were computed.
  virtual bool is_exact() const { return false; }
  // Upper bound of a stream's bytes.
  virtual size_t BytesMax(const StreamShape& shape, Level level) const = 0;
  // Whether Encode could have made a stream of `bytes`.
  virtual bool MayHaveBytes(const StreamShape& shape, Level level,
                            uint32_t bytes) const = 0;

  // Writes the streams of the first steps.size() levels of the ladder. `heads`
  // has the rows of each head of the stream. INVALID_ARGUMENT when the level
  // cannot hold the values. REQUIRES: each room is BytesMax of its level.
  virtual absl::Status Encode(const StreamShape& shape,
                              absl::Span<const Rows> heads,
                              const StreamContext& context,
                              absl::Span<StreamRoom> steps) const = 0;
  // Writes the rows of a stream as its first steps.size() levels give them. A
  // head whose rows have no base is not wanted. DATA_LOSS when a stream is none
  // of this codec's, though its checksum may be right. The rows are ready for
  // other threads on return. REQUIRES: MayHaveBytes(shape, level, size) of
  // each.
  virtual absl::Status Decode(const StreamShape& shape,
                              absl::Span<StreamReader> steps,
                              const StreamContext& context,
                              absl::Span<const MutableRows> heads) const = 0;
  // Decode at every level up to the last of job.steps, each from the one before
  // it: `at(step)` is called when the rows are as Decode of step + 1 steps
  // gives them.
  virtual absl::Status DecodeEach(const StreamJob& job,
                                  absl::FunctionRef<void(size_t)> at) const {
    KDN_CHECK(job.steps.size() == 1, "a ladder of one level");
    absl::Status status = Decode(job.shape, job.steps, job.context, job.heads);
    if (status.ok()) at(0);
    return status;
  }
  // Decode of two streams, which a codec may do side by side.
  virtual std::array<absl::Status, 2> DecodeTwo(const StreamJob& first,
                                                const StreamJob& second) const {
    return {Decode(first.shape, first.steps, first.context, first.heads),
            Decode(second.shape, second.steps, second.context, second.heads)};
  }
};

// The codec whose ladder the level is in.
const StreamCodec& CodecOf(Level level);

}  // namespace kdn::codec

#endif  // KDN_CODEC_STREAM_CODEC_H_
