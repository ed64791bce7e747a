#ifndef KDN_CODEC_STREAM_CODEC_H_
#define KDN_CODEC_STREAM_CODEC_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/row_rotation.h"
#include "codec/stream_reader.h"
#include "kv/dtype.h"
#include "kv/kv_view.h"
#include "kv/level.h"

namespace kdn::codec {

// What one stream holds: the rows of one (layer, K|V, head).
struct StreamShape {
  KvPart part = KvPart::kK;
  int tokens = 0;
  int head_dim = 0;
  Dtype dtype = Dtype::kBf16;

  size_t row_bytes() const {
    return static_cast<size_t>(head_dim) * SizeOf(dtype);
  }
};

// The stream shape of any head of `shape`.
inline StreamShape StreamShapeOf(const KvShape& shape, KvPart part) {
  return {part, shape.tokens, shape.head_dim, shape.dtype};
}

// One head's rows in an engine's memory, `token_stride` bytes apart. Not owned.
template <typename T>
struct BasicRows {
  T* base = nullptr;
  int64_t token_stride = 0;

  T* At(int token) const { return base + token * token_stride; }
};
using Rows = BasicRows<const std::byte>;
using MutableRows = BasicRows<std::byte>;

template <typename T>
BasicRows<T> RowsOf(const BasicKvView<T>& layer_kv, KvPart part, int head) {
  return {layer_kv.At(0, part, head, 0), layer_kv.strides().token};
}

// In which form K is coded: as the engine rotated it, or before RoPE.
enum class KForm { kAsComputed, kBeforeRope };

// The inside of one level: turns one head's rows into a stream and back. The
// frame (object, encoder, decoder) owns offsets, lengths, checksums and the
// choice of rotation; a codec sees rows only. A new level is a new
// implementation here and an entry in CodecOf. Stateless: any thread.
class StreamCodec {
 public:
  virtual ~StreamCodec() = default;

  virtual KForm k_form() const = 0;
  // Upper bound of a stream's bytes.
  virtual size_t BytesMax(const StreamShape& shape) const = 0;
  // Whether Encode could have made a stream of `bytes`.
  virtual bool MayHaveBytes(const StreamShape& shape, uint32_t bytes) const = 0;

  // Writes the stream to `out` and returns its bytes. Each row is first turned
  // by `rotation` unless that is null. INVALID_ARGUMENT when the level cannot
  // hold the values. REQUIRES: out.size() >= BytesMax(shape).
  virtual absl::StatusOr<size_t> Encode(const StreamShape& shape,
                                        const Rows& rows,
                                        const RowRotation* rotation,
                                        absl::Span<std::byte> out) const = 0;
  // Writes the rows of a stream, each turned by `rotation` unless null.
  // DATA_LOSS when the stream is none of this codec's, though its checksum may
  // be right. The rows are ready for other threads on return.
  // REQUIRES: MayHaveBytes(shape, stream->size()).
  virtual absl::Status Decode(const StreamShape& shape, StreamReader* stream,
                              const RowRotation* rotation,
                              const MutableRows& rows) const = 0;
};

const StreamCodec& CodecOf(Level level);

}  // namespace kdn::codec

#endif  // KDN_CODEC_STREAM_CODEC_H_
