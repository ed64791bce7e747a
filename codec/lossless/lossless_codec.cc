#include "codec/lossless/lossless_codec.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "codec/kernels/vector_kernels.h"
#include "codec/lossless/exponent_coding.h"
#include "codec/lossless/exponent_split.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// The first byte of a stream.
constexpr std::byte kRaw{0};
constexpr std::byte kCoded{1};

// Bytes that are added to the CRC before their rows are copied: one round of
// the interleaved CRC, far less than the first-level cache. With prefetching
// and streaming stores, blocks of 3 KB decode at 0.67 of the rate of one large
// memcpy; with whole 64 KB streams checked first, at 0.43 (one core, bf16,
// token-major, 192 MB).
constexpr size_t kBlockBytes = 3072;

size_t RawBytes(const StreamShape& shape) {
  return shape.row_bytes() * shape.tokens;
}

// Copies an engine's rows, which may lie apart, to one dense array.
void Gather(const StreamShape& shape, const Rows& rows, std::byte* out) {
  const size_t row_bytes = shape.row_bytes();
  if (rows.token_stride == static_cast<int64_t>(row_bytes)) {
    std::memcpy(out, rows.base, row_bytes * shape.tokens);
    return;
  }
  for (int token = 0; token < shape.tokens; ++token) {
    std::memcpy(out + token * row_bytes, rows.At(token), row_bytes);
  }
}

// Writes decoded rows to the engine's memory.
class RowsOut {
 public:
  RowsOut(const StreamShape& shape, const RowRotation* rotation,
          const MutableRows& rows)
      : shape_(shape), rotation_(rotation), rows_(rows) {
    KDN_CHECK(rotation == nullptr || rotation->rotary_dim() <= shape.head_dim,
              "RoPE past the head");
  }

  // Prefetches the bytes `prefetch_ahead` after `row`, unless that is 0.
  void Write(int token, const std::byte* row, size_t prefetch_ahead) {
    if (rotation_ != nullptr && rotation_->Moves(token)) {
      WriteTurned(token, row);
    } else {
      kernels::CopyOut(row, shape_.row_bytes(), rows_.At(token),
                       prefetch_ahead);
    }
  }

 private:
  // Converts only the elements that turn to floats: the others keep their bits.
  void WriteTurned(int token, const std::byte* from) {
    const size_t count = rotation_->rotary_dim();
    // A copy that is aligned for the loops that convert elements.
    std::memcpy(row_.data(), from, shape_.row_bytes());
    kernels::LoadRow(shape_.dtype, row_.data(), count, turned_.data());
    rotation_->Rotate(token, turned_.data());
    kernels::StoreRow(shape_.dtype, turned_.data(), count, row_.data());
    kernels::CopyOut(row_.data(), shape_.row_bytes(), rows_.At(token));
  }

  const StreamShape& shape_;
  const RowRotation* rotation_;
  const MutableRows& rows_;
  // Not initialised: only the head's own elements are used.
  std::array<float, kHeadDimMax> turned_;
  alignas(64) std::array<std::byte, kHeadDimMax * sizeof(float)> row_;
};

void DecodeRaw(const StreamShape& shape, StreamReader* stream, RowsOut& out) {
  const size_t row_bytes = shape.row_bytes();
  const std::byte* begin = nullptr;
  size_t checked = 0;
  for (int token = 0; stream->remaining() > 0;) {
    const auto block = stream->Next(std::min(kBlockBytes, stream->remaining()));
    if (begin == nullptr) begin = block.data();
    checked += block.size();
    for (; (token + 1) * row_bytes <= checked; ++token) {
      out.Write(token, begin + token * row_bytes, 2 * kBlockBytes);
    }
  }
}

absl::Status DecodeCoded(const StreamShape& shape, StreamReader* stream,
                         Isa isa, RowsOut& out) {
  ExponentDecoder decoder(shape, stream, isa);
  if (absl::Status s = decoder.Start(); !s.ok()) return s;
  for (int token = 0; token < shape.tokens; ++token) {
    out.Write(token, decoder.NextRow(), /*prefetch_ahead=*/0);
  }
  return decoder.Finish();
}

}  // namespace

size_t LosslessCodec::BytesMax(const StreamShape& shape, Level) const {
  return 1 + RawBytes(shape);
}

// Both forms hold the sign and mantissa of each value.
bool LosslessCodec::MayHaveBytes(const StreamShape& shape, Level level,
                                 uint32_t bytes) const {
  return bytes > shape.values() * RestBytes(shape.dtype) &&
         bytes <= BytesMax(shape, level);
}

absl::Status LosslessCodec::Encode(const StreamShape& shape,
                                   absl::Span<const Rows> heads,
                                   const StreamContext& context,
                                   absl::Span<StreamRoom> steps) const {
  KDN_CHECK(heads.size() == 1 && steps.size() == 1, "one head, one level");
  KDN_CHECK(context.rotation == nullptr, "lossless keeps K as computed");
  StreamRoom& out = steps.front();
  const size_t raw_bytes = RawBytes(shape);
  KDN_CHECK(out.room.size() > raw_bytes, "no room for the stream");
  size_t coded_bytes = 0;
  if (context.lossless_form == LosslessForm::kCoded) {
    // The room is less than the elements take: if the coded rows do not fit,
    // the raw elements are not longer.
    coded_bytes = EncodeExponents(shape, heads.front(),
                                  out.room.subspan(1, raw_bytes - 1));
  }
  out.room[0] = coded_bytes > 0 ? kCoded : kRaw;
  out.bytes = 1 + (coded_bytes > 0 ? coded_bytes : raw_bytes);
  if (coded_bytes == 0) Gather(shape, heads.front(), out.room.data() + 1);
  return absl::OkStatus();
}

absl::Status LosslessCodec::Decode(const StreamShape& shape,
                                   absl::Span<StreamReader> steps,
                                   const StreamContext& context,
                                   absl::Span<const MutableRows> heads) const {
  KDN_CHECK(heads.size() == 1 && steps.size() == 1, "one head, one level");
  StreamReader* stream = &steps.front();
  KDN_CHECK(stream->size() > 0, "length was not checked");
  RowsOut out(shape, context.rotation, heads.front());
  const std::byte form = stream->Next(1).front();
  absl::Status status;
  if (form == kCoded) {
    status = DecodeCoded(shape, stream, context.isa, out);
  } else if (form == kRaw && stream->remaining() == RawBytes(shape)) {
    DecodeRaw(shape, stream, out);
  } else {
    status = absl::DataLossError(
        "a lossless stream is neither raw nor coded elements");
  }
  kernels::FinishCopyOut();
  return status;
}

}  // namespace kdn::codec
