#include "kv/dtype.h"

#include <cfloat>
#include <cstring>

#include "kv/check.h"

namespace kdn {

std::string_view Name(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBf16:
      return "bf16";
    case Dtype::kFp16:
      return "fp16";
    case Dtype::kFp32:
      return "fp32";
  }
  return "unknown";
}

float LargestOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBf16:
      return 0x1.fep127f;
    case Dtype::kFp16:
      return 65504.0f;
    case Dtype::kFp32:
      return FLT_MAX;
  }
  KDN_CHECK(false, "dtype out of range");
  return 0.0f;
}

std::optional<Dtype> ParseDtype(std::string_view name) {
  if (name == "bf16" || name == "bfloat16") return Dtype::kBf16;
  if (name == "fp16" || name == "float16") return Dtype::kFp16;
  if (name == "fp32" || name == "float32") return Dtype::kFp32;
  return std::nullopt;
}

float Fp16ToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24 is exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 0x1f ? 0x7f800000u : (exponent + 112) << 23;
  return std::bit_cast<float>(sign | wide | (mantissa << 13));
}

uint16_t FloatToFp16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // becomes a quiet NaN
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  }
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // rounds past 65504
  if (magnitude < 0x38800000u) {  // subnormal: the addition rounds
    const float scaled = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(
        sign | (std::bit_cast<uint32_t>(scaled) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

namespace {

uint16_t LoadU16(const std::byte* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

void StoreU16(uint16_t value, std::byte* at) {
  std::memcpy(at, &value, sizeof(value));
}

}  // namespace

void LoadFloats(Dtype dtype, const std::byte* source, size_t count,
                float* out) {
  switch (dtype) {
    case Dtype::kBf16:
      for (size_t i = 0; i < count; ++i) {
        out[i] = Bf16ToFloat(LoadU16(source + 2 * i));
      }
      return;
    case Dtype::kFp16:
      for (size_t i = 0; i < count; ++i) {
        out[i] = Fp16ToFloat(LoadU16(source + 2 * i));
      }
      return;
    case Dtype::kFp32:
      std::memcpy(out, source, 4 * count);
      return;
  }
  KDN_CHECK(false, "dtype out of range");
}

void StoreFloats(Dtype dtype, const float* source, size_t count,
                 std::byte* out) {
  switch (dtype) {
    case Dtype::kBf16:
      for (size_t i = 0; i < count; ++i) {
        StoreU16(FloatToBf16(source[i]), out + 2 * i);
      }
      return;
    case Dtype::kFp16:
      for (size_t i = 0; i < count; ++i) {
        StoreU16(FloatToFp16(source[i]), out + 2 * i);
      }
      return;
    case Dtype::kFp32:
      std::memcpy(out, source, 4 * count);
      return;
  }
  KDN_CHECK(false, "dtype out of range");
}

}  // namespace kdn
