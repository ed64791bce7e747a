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

// The shape of one stream: the rows of the heads that share it, of one layer's
// K or V, or of both.
struct StreamShape {
  KvPart part = KvPart::kK;
  // In a joint stream, each head counts twice: the K of all heads comes first,
  // then their V. 0 for the V of a joint stream, which has no bytes.
  int heads = 1;
  int tokens = 0;
  int head_dim = 0;
  Dtype dtype = Dtype::kBf16;
  bool joint = false;

  // The leading heads whose rows are K.
  int k_heads() const {
    return part == KvPart::kV ? 0 : joint ? heads / 2 : heads;
  }
  // Bytes of a row of one head.
  size_t row_bytes() const {
    return static_cast<size_t>(head_dim) * SizeOf(dtype);
  }
  size_t values() const {
    return static_cast<size_t>(heads) * tokens * head_dim;
  }
};

inline StreamShape StreamShapeOf(const StreamGrid& grid, const StreamId& id) {
  const KvShape& shape = grid.shape;
  const bool joint = grid.IsJoint(id.level);
  const int heads = grid.HeadsOf(id.part, id.level);
  const int both = id.part == KvPart::kK ? 2 * heads : 0;
  return {id.part,      joint ? both : heads,
          shape.tokens, shape.dim(id.part),
          shape.dtype,  joint};
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

// The form in which K is coded: as the engine rotated it, or before RoPE.
enum class KForm { kAsComputed, kBeforeRope };

// How an encoder writes streams of lossless (docs/formats.md, "lossless").
enum class LosslessForm : uint8_t {
  // With coded exponents where that is shorter.
  kCoded,
  // The engine's elements as they are. An object is then half as large again,
  // and encoding and decoding are copies.
  kRaw,
};

// The input of a codec besides rows and streams.
struct StreamContext {
  // Turns each row of each head's K, before encoding or after decoding. Null:
  // rows do not turn.
  const RowRotation* rotation = nullptr;
  // The positions where the tokens' KV was computed. For encoders only.
  absl::Span<const int32_t> positions = {};
  // How many classes later than at base each token's class is. For the encoder
  // of transform-coded levels only.
  int coarser = 0;
  // For the encoder of lossless only.
  LosslessForm lossless_form = LosslessForm::kCoded;
  // The stream's transform and the calibration's tables. For transform-coded
  // levels only.
  const StreamTransform* transform = nullptr;
  absl::Span<const FormatCoder::Table> tables;
  // The instructions that a decoder uses. All give the same bits.
  Isa isa = BestIsa();
  // Whether the caller reads the decoded rows at once. The codecs that are not
  // exact then write the rows into the caches and not past them.
  bool reads_rows = false;
};

// Writes a decoded row, past the caches unless context.reads_rows.
inline void CopyDecoded(const StreamContext& context,
                        absl::Span<const std::byte> row, std::byte* to) {
  if (context.reads_rows) {
    std::memcpy(to, row.data(), row.size());
  } else {
    kernels::CopyOut(row.data(), row.size(), to);
  }
}

// The arguments of one call of Decode.
struct StreamJob {
  StreamShape shape;
  absl::Span<StreamReader> steps;
  StreamContext context;
  absl::Span<const MutableRows> heads;
};

// Memory for a stream. Encode sets `bytes` to the length of the stream.
struct StreamRoom {
  absl::Span<std::byte> room;
  size_t bytes = 0;
};

// Encodes the rows of a stream's heads at the levels of one ladder, one stream
// for each level, and decodes them. Object, encoder and decoder deal with
// offsets, lengths, checksums and measured errors, and choose rotation and
// calibration. A new level needs an implementation of this class and an entry
// in CodecOf. Stateless, so thread-safe.
class StreamCodec {
 public:
  virtual ~StreamCodec() = default;

  virtual KForm k_form() const = 0;
  // Whether decoding gives the same bits at the positions where the KV was
  // computed.
  virtual bool is_exact() const { return false; }
  // Upper bound of a stream's bytes.
  virtual size_t BytesMax(const StreamShape& shape, Level level) const = 0;
  // Whether Encode can write a stream of `bytes` bytes.
  virtual bool MayHaveBytes(const StreamShape& shape, Level level,
                            uint32_t bytes) const = 0;

  // Writes the streams of the first steps.size() levels of the ladder. `heads`
  // are the rows of each head of the stream. INVALID_ARGUMENT when a level
  // cannot hold the values. REQUIRES: each room has at least BytesMax bytes of
  // its level.
  virtual absl::Status Encode(const StreamShape& shape,
                              absl::Span<const Rows> heads,
                              const StreamContext& context,
                              absl::Span<StreamRoom> steps) const = 0;
  // Decodes the first steps.size() levels of a ladder and writes the rows of
  // `heads`. In a stream of several heads, skips the heads whose rows have a
  // null base. DATA_LOSS when Encode cannot have written a stream; the
  // checksum, which the caller compares, may be right even then. On return,
  // other threads may read the rows. REQUIRES: MayHaveBytes is true for the
  // level and size of each stream.
  virtual absl::Status Decode(const StreamShape& shape,
                              absl::Span<StreamReader> steps,
                              const StreamContext& context,
                              absl::Span<const MutableRows> heads) const = 0;
  // Decodes every level of job.steps in turn, each from the level before. Calls
  // `at(step)` after each level: the rows are then the rows that Decode gives
  // for the first step + 1 levels.
  virtual absl::Status DecodeEach(const StreamJob& job,
                                  absl::FunctionRef<void(size_t)> at) const {
    KDN_CHECK(job.steps.size() == 1, "a ladder of one level");
    absl::Status status = Decode(job.shape, job.steps, job.context, job.heads);
    if (status.ok()) at(0);
    return status;
  }
  // Decodes two streams, which some codecs do faster side by side.
  virtual std::array<absl::Status, 2> DecodeTwo(const StreamJob& first,
                                                const StreamJob& second) const {
    return {Decode(first.shape, first.steps, first.context, first.heads),
            Decode(second.shape, second.steps, second.context, second.heads)};
  }
};

// The codec of the ladder that the level belongs to.
const StreamCodec& CodecOf(Level level);

}  // namespace kdn::codec

#endif  // KDN_CODEC_STREAM_CODEC_H_
