#ifndef KDN_KV_DTYPE_H_
#define KDN_KV_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kdn {

// The element type of an engine's KV cache. The numbers are part of the wire
// and disk formats.
enum class Dtype : uint8_t { kBf16 = 0, kFp16 = 1, kFp32 = 2 };

// Bytes of one element.
constexpr size_t SizeOf(Dtype dtype) { return dtype == Dtype::kFp32 ? 4 : 2; }
std::string_view Name(Dtype dtype);
// The largest finite value.
float LargestOf(Dtype dtype);
// Understands "bf16", "bfloat16", "fp16", "float16", "fp32" and "float32";
// nullopt for other names.
std::optional<Dtype> ParseDtype(std::string_view name);

inline float Bf16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
// Rounds to nearest, ties to even. A NaN becomes a quiet NaN.
inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  }
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
float Fp16ToFloat(uint16_t bits);
// Rounds to nearest, ties to even. A value too large for fp16 becomes infinity.
uint16_t FloatToFp16(float value);

// Converts `count` elements between memory of `dtype`, at any alignment, and
// floats.
void LoadFloats(Dtype dtype, const std::byte* source, size_t count, float* out);
void StoreFloats(Dtype dtype, const float* source, size_t count,
                 std::byte* out);

}  // namespace kdn

#endif  // KDN_KV_DTYPE_H_
