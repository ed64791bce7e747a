#include "codec/int8_codec.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "codec/kernels/vector_kernels.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

constexpr float kLargestCode = 127.0f;

// The scale for values up to the magnitude with the bits `abs_bits`. At least
// the smallest normal float, so that a division by it is exact enough even if
// all values are zero or subnormal. Small enough that scale * kLargestCode does
// not overflow.
float ScaleFor(uint32_t abs_bits) {
  KDN_DCHECK(abs_bits < kernels::kInfinityBits, "range was not checked");
  const float scale = std::bit_cast<float>(abs_bits) / kLargestCode;
  if (!std::isfinite(scale * kLargestCode)) return std::nextafter(scale, 0.0f);
  return std::max(scale, FLT_MIN);
}

absl::Status NotFinite() {
  return absl::InvalidArgumentError(
      "a value is not finite before RoPE: int8 holds only finite values");
}

size_t ScaleCount(const StreamShape& shape) {
  return shape.part == KvPart::kK ? shape.head_dim : shape.tokens;
}

// The two parts of a stream: scales, then codes.
struct Halves {
  size_t scale_bytes;
  size_t code_bytes;
};
Halves HalvesOf(const StreamShape& shape) {
  return {ScaleCount(shape) * sizeof(float),
          static_cast<size_t>(shape.tokens) * shape.head_dim};
}

int8_t* CodesIn(const StreamShape& shape, absl::Span<std::byte> stream) {
  return reinterpret_cast<int8_t*>(stream.data() + HalvesOf(shape).scale_bytes);
}

void LoadTurned(const StreamShape& shape, const Rows& rows,
                const RowRotation* rotation, int token, float* out) {
  kernels::LoadRow(shape.dtype, rows.At(token), shape.head_dim, out);
  if (rotation != nullptr && rotation->Moves(token)) {
    rotation->Rotate(token, out);
  }
}

// Reads every row once, because an engine may change its memory, and keeps the
// floats: the scales depend on all of them.
absl::Status EncodeByChannel(const StreamShape& shape, const Rows& rows,
                             const RowRotation* rotation,
                             absl::Span<std::byte> out) {
  const size_t dim = shape.head_dim;
  auto values = std::make_unique_for_overwrite<float[]>(shape.tokens * dim);
  std::vector<uint32_t> maxima(dim, 0);
  for (int token = 0; token < shape.tokens; ++token) {
    float* row = values.get() + token * dim;
    LoadTurned(shape, rows, rotation, token, row);
    kernels::RaiseMaxAbsBits(row, dim, maxima.data());
  }
  std::vector<float> scales(dim);
  for (size_t i = 0; i < dim; ++i) {
    if (maxima[i] >= kernels::kInfinityBits) return NotFinite();
    scales[i] = ScaleFor(maxima[i]);
  }
  std::memcpy(out.data(), scales.data(), dim * sizeof(float));
  int8_t* codes = CodesIn(shape, out);
  for (int token = 0; token < shape.tokens; ++token) {
    kernels::QuantiseByEach(values.get() + token * dim, scales.data(), dim,
                            codes + token * dim);
  }
  return absl::OkStatus();
}

absl::Status EncodeByToken(const StreamShape& shape, const Rows& rows,
                           const RowRotation* rotation,
                           absl::Span<std::byte> out) {
  const size_t dim = shape.head_dim;
  std::vector<float> row(dim);
  int8_t* codes = CodesIn(shape, out);
  for (int token = 0; token < shape.tokens; ++token) {
    LoadTurned(shape, rows, rotation, token, row.data());
    const uint32_t largest = kernels::MaxAbsBits(row.data(), dim);
    if (largest >= kernels::kInfinityBits) return NotFinite();
    const float scale = ScaleFor(largest);
    std::memcpy(out.data() + token * sizeof(float), &scale, sizeof(float));
    kernels::QuantiseByOne(row.data(), scale, dim, codes + token * dim);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> ReadScales(
    const StreamShape& shape, absl::Span<const std::byte> bytes) {
  std::vector<float> scales(ScaleCount(shape));
  std::memcpy(scales.data(), bytes.data(), scales.size() * sizeof(float));
  for (size_t i = 0; i < scales.size(); ++i) {
    if (!(std::isfinite(scales[i]) && scales[i] > 0.0f)) {
      return absl::DataLossError(
          absl::StrCat("scale ", i, " is ", scales[i],
                       ", expected a finite number above 0"));
    }
  }
  return scales;
}

}  // namespace

size_t Int8Codec::BytesMax(const StreamShape& shape, Level) const {
  const Halves halves = HalvesOf(shape);
  return halves.scale_bytes + halves.code_bytes;
}

bool Int8Codec::MayHaveBytes(const StreamShape& shape, Level level,
                             uint32_t bytes) const {
  return bytes == BytesMax(shape, level);
}

absl::Status Int8Codec::Encode(const StreamShape& shape,
                               absl::Span<const Rows> heads,
                               const StreamContext& context,
                               absl::Span<StreamRoom> steps) const {
  KDN_CHECK(heads.size() == 1 && steps.size() == 1, "one head, one level");
  StreamRoom& out = steps.front();
  out.bytes = BytesMax(shape, Level::kInt8);
  KDN_CHECK(out.room.size() >= out.bytes, "no room for the stream");
  return shape.part == KvPart::kK
             ? EncodeByChannel(shape, heads.front(), context.rotation, out.room)
             : EncodeByToken(shape, heads.front(), context.rotation, out.room);
}

absl::Status Int8Codec::Decode(const StreamShape& shape,
                               absl::Span<StreamReader> steps,
                               const StreamContext& context,
                               absl::Span<const MutableRows> heads) const {
  KDN_CHECK(heads.size() == 1 && steps.size() == 1, "one head, one level");
  StreamReader* stream = &steps.front();
  const RowRotation* rotation = context.rotation;
  const MutableRows& rows = heads.front();
  KDN_CHECK(stream->size() == BytesMax(shape, Level::kInt8),
            "length was not checked");
  const Halves halves = HalvesOf(shape);
  const auto scales = ReadScales(shape, stream->Next(halves.scale_bytes));
  if (!scales.ok()) return scales.status();
  const size_t dim = shape.head_dim;
  const auto* codes =
      reinterpret_cast<const int8_t*>(stream->Next(halves.code_bytes).data());
  std::vector<float> row(dim);
  std::vector<std::byte> stored(shape.row_bytes());
  for (int token = 0; token < shape.tokens; ++token, codes += dim) {
    if (shape.part == KvPart::kK) {
      kernels::DequantiseByEach(codes, scales->data(), dim, row.data());
    } else {
      kernels::DequantiseByOne(codes, (*scales)[token], dim, row.data());
    }
    if (rotation != nullptr && rotation->Moves(token)) {
      rotation->Rotate(token, row.data());
    }
    kernels::StoreRow(shape.dtype, row.data(), dim, stored.data());
    CopyDecoded(context, stored, rows.At(token));
  }
  kernels::FinishCopyOut();
  return absl::OkStatus();
}

}  // namespace kdn::codec
