#include "codec/vector_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

// Sanitizers instrument the ifunc resolvers that target_clones makes, which run
// before their runtime is up.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KDN_CODEC_ONE_WIDTH
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    !defined(__x86_64__)
#define KDN_CODEC_ONE_WIDTH
#endif
#ifdef KDN_CODEC_ONE_WIDTH
#define KDN_CODEC_WIDTHS
#else
#define KDN_CODEC_WIDTHS \
  __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

namespace kdn::codec::kernels {
namespace {

// Added to and taken from a float below 2^22 in magnitude, this leaves the
// nearest integer: the sum has no bits for the fraction. Vectorises everywhere,
// unlike a call of nearbyint.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

constexpr uint32_t kMagnitude = 0x7fffffffu;

}  // namespace

KDN_CODEC_WIDTHS void LoadBf16Row(const uint16_t* __restrict source,
                                  size_t count, float* __restrict out) {
  for (size_t i = 0; i < count; ++i) out[i] = Bf16ToFloat(source[i]);
}

KDN_CODEC_WIDTHS void StoreBf16Row(const float* __restrict source, size_t count,
                                   uint16_t* __restrict out) {
  for (size_t i = 0; i < count; ++i) out[i] = FloatToBf16(source[i]);
}

void LoadRow(Dtype dtype, const std::byte* source, size_t count, float* out) {
  if (dtype == Dtype::kBf16 &&
      reinterpret_cast<uintptr_t>(source) % alignof(uint16_t) == 0) {
    return LoadBf16Row(reinterpret_cast<const uint16_t*>(source), count, out);
  }
  LoadFloats(dtype, source, count, out);
}

void StoreRow(Dtype dtype, const float* source, size_t count, std::byte* out) {
  if (dtype == Dtype::kBf16 &&
      reinterpret_cast<uintptr_t>(out) % alignof(uint16_t) == 0) {
    return StoreBf16Row(source, count, reinterpret_cast<uint16_t*>(out));
  }
  StoreFloats(dtype, source, count, out);
}

#if defined(__x86_64__)

void CopyOut(const std::byte* from, size_t bytes, std::byte* to,
             size_t prefetch_ahead) {
  constexpr size_t kLine = 64;
  if (bytes % kLine != 0 || reinterpret_cast<uintptr_t>(to) % kLine != 0) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (size_t at = 0; at < bytes; at += kLine) {
    if (prefetch_ahead != 0) {
      // An integer, since the address may belong to nobody.
      const uintptr_t ahead =
          reinterpret_cast<uintptr_t>(from) + at + prefetch_ahead;
      _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
    }
    for (size_t i = at; i < at + kLine; i += sizeof(__m128i)) {
      _mm_stream_si128(
          reinterpret_cast<__m128i*>(to + i),
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    }
  }
}

void FinishCopyOut() { _mm_sfence(); }

#else

void CopyOut(const std::byte* from, size_t bytes, std::byte* to, size_t) {
  std::memcpy(to, from, bytes);
}

void FinishCopyOut() {}

#endif

KDN_CODEC_WIDTHS void RotateHalves(const float* __restrict cos,
                                   const float* __restrict sin, size_t pairs,
                                   float* __restrict head) {
  float* __restrict low = head;
  float* __restrict high = head + pairs;
  for (size_t i = 0; i < pairs; ++i) {
    const float x = low[i];
    const float y = high[i];
    low[i] = x * cos[i] - y * sin[i];
    high[i] = y * cos[i] + x * sin[i];
  }
}

KDN_CODEC_WIDTHS void RotateNeighbours(const float* __restrict cos,
                                       const float* __restrict sin,
                                       size_t pairs, float* __restrict head) {
  for (size_t i = 0; i < pairs; ++i) {
    const float x = head[2 * i];
    const float y = head[2 * i + 1];
    head[2 * i] = x * cos[i] - y * sin[i];
    head[2 * i + 1] = y * cos[i] + x * sin[i];
  }
}

KDN_CODEC_WIDTHS uint32_t MaxAbsBits(const float* row, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(row[i]) & kMagnitude);
  }
  return largest;
}

KDN_CODEC_WIDTHS void RaiseMaxAbsBits(const float* __restrict row, size_t count,
                                      uint32_t* __restrict maxima) {
  for (size_t i = 0; i < count; ++i) {
    maxima[i] =
        std::max(maxima[i], std::bit_cast<uint32_t>(row[i]) & kMagnitude);
  }
}

KDN_CODEC_WIDTHS void QuantiseByOne(const float* __restrict row, float scale,
                                    size_t count, int8_t* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    const float rounded = (row[i] / scale + kRounder) - kRounder;
    out[i] = static_cast<int8_t>(static_cast<int32_t>(rounded));
  }
}

KDN_CODEC_WIDTHS void QuantiseByEach(const float* __restrict row,
                                     const float* __restrict scales,
                                     size_t count, int8_t* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    const float rounded = (row[i] / scales[i] + kRounder) - kRounder;
    out[i] = static_cast<int8_t>(static_cast<int32_t>(rounded));
  }
}

KDN_CODEC_WIDTHS void DequantiseByOne(const int8_t* __restrict row, float scale,
                                      size_t count, float* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(row[i]) * scale;
  }
}

KDN_CODEC_WIDTHS void DequantiseByEach(const int8_t* __restrict row,
                                       const float* __restrict scales,
                                       size_t count, float* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(row[i]) * scales[i];
  }
}

}  // namespace kdn::codec::kernels
