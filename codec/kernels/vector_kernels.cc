#include "codec/kernels/vector_kernels.h"

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

bool IsAligned(const std::byte* row, size_t alignment) {
  return reinterpret_cast<uintptr_t>(row) % alignment == 0;
}

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
  if (dtype == Dtype::kBf16 && IsAligned(source, alignof(uint16_t))) {
    return LoadBf16Row(reinterpret_cast<const uint16_t*>(source), count, out);
  }
  LoadFloats(dtype, source, count, out);
}

void StoreRow(Dtype dtype, const float* source, size_t count, std::byte* out) {
  if (dtype == Dtype::kBf16 && IsAligned(out, alignof(uint16_t))) {
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

double Differences::sum_of_squares() const {
  double sum = 0;
  for (const double lane : squares) sum += lane;
  return sum;
}

float Differences::max() const {
  return std::bit_cast<float>(*std::max_element(largest, largest + kLanes));
}

namespace {

// The square of a float between these is one too.
constexpr uint32_t kSmall = std::bit_cast<uint32_t>(1e-15f);
constexpr uint32_t kLarge = std::bit_cast<uint32_t>(1e15f);

inline float AsFloat(float value) { return value; }
inline float AsFloat(uint16_t bf16) { return Bf16ToFloat(bf16); }

// The sum of squares, and the largest magnitude's bits. A part of what calls
// it, whatever its width.
template <typename Real, typename Element>
inline __attribute__((always_inline)) void Sum(const Element* __restrict a,
                                               const Element* __restrict b,
                                               size_t count,
                                               Real* __restrict squares,
                                               uint32_t* __restrict largest) {
  constexpr size_t kLanes = Differences::kLanes;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float difference = AsFloat(a[i + j]) - AsFloat(b[i + j]);
      squares[j] += Real{difference} * difference;
      largest[j] = std::max(largest[j],
                            std::bit_cast<uint32_t>(difference) & kMagnitude);
    }
  }
  for (size_t j = 0; i < count; ++i, ++j) {
    const float difference = AsFloat(a[i]) - AsFloat(b[i]);
    squares[j] += Real{difference} * difference;
    largest[j] =
        std::max(largest[j], std::bit_cast<uint32_t>(difference) & kMagnitude);
  }
}

KDN_CODEC_WIDTHS void SumInFloats(const float* __restrict a,
                                  const float* __restrict b, size_t count,
                                  float* __restrict squares,
                                  uint32_t* __restrict largest) {
  Sum(a, b, count, squares, largest);
}

KDN_CODEC_WIDTHS void SumInFloats(const uint16_t* __restrict a,
                                  const uint16_t* __restrict b, size_t count,
                                  float* __restrict squares,
                                  uint32_t* __restrict largest) {
  Sum(a, b, count, squares, largest);
}

// Adds sums of floats; false, and no squares, if those may not be their
// squares.
KDN_CODEC_WIDTHS bool AddSums(const float* __restrict squares,
                              const uint32_t* __restrict largest,
                              Differences* __restrict differences) {
  constexpr size_t kLanes = Differences::kLanes;
  uint32_t most = 0;
  for (size_t j = 0; j < kLanes; ++j) most = std::max(most, largest[j]);
  for (size_t j = 0; j < kLanes; ++j) {
    differences->largest[j] = std::max(differences->largest[j], largest[j]);
  }
  if (most == 0) return true;
  if (most < kSmall || most > kLarge) return false;
  for (size_t j = 0; j < kLanes; ++j) differences->squares[j] += squares[j];
  return true;
}

template <typename Element>
void Add(const Element* a, const Element* b, size_t count,
         Differences* differences) {
  float squares[Differences::kLanes] = {};
  uint32_t largest[Differences::kLanes] = {};
  SumInFloats(a, b, count, squares, largest);
  if (AddSums(squares, largest, differences)) return;
  Sum(a, b, count, differences->squares, largest);
}

KDN_CODEC_WIDTHS float SumOfSquares(const float* __restrict a,
                                    const float* __restrict b, size_t count) {
  constexpr size_t kLanes = Differences::kLanes;
  float sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float difference = a[i + j] - b[i + j];
      sums[j] += difference * difference;
    }
  }
  for (size_t j = 0; i < count; ++i, ++j) {
    const float difference = a[i] - b[i];
    sums[j] += difference * difference;
  }
  for (size_t half = kLanes / 2; half > 0; half /= 2) {
    for (size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
}

}  // namespace

void AddDifferences(const float* a, const float* b, size_t count,
                    Differences* differences) {
  Add(a, b, count, differences);
}

void AddDifferences(Dtype dtype, const std::byte* a, const std::byte* b,
                    size_t count, Differences* differences) {
  if (dtype == Dtype::kBf16 && IsAligned(a, alignof(uint16_t)) &&
      IsAligned(b, alignof(uint16_t))) {
    return Add(reinterpret_cast<const uint16_t*>(a),
               reinterpret_cast<const uint16_t*>(b), count, differences);
  }
  constexpr size_t kBlock = 128;
  float rows[2][kBlock];
  const size_t size = SizeOf(dtype);
  for (size_t at = 0; at < count; at += kBlock) {
    const size_t some = std::min(kBlock, count - at);
    LoadRow(dtype, a + at * size, some, rows[0]);
    LoadRow(dtype, b + at * size, some, rows[1]);
    AddDifferences(rows[0], rows[1], some, differences);
  }
}

double SquaredDistance(const float* a, const float* b, size_t count) {
  const float sum = SumOfSquares(a, b, count);
  if (sum > 1e-30f && sum < 1e30f) return sum;
  // The square of a float may be none.
  Differences differences;
  AddDifferences(a, b, count, &differences);
  return differences.sum_of_squares();
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

KDN_CODEC_WIDTHS void Centre(const float* __restrict row,
                             const float* __restrict mean, float scale,
                             size_t count, float* __restrict out) {
  for (size_t i = 0; i < count; ++i) out[i] = (row[i] - mean[i]) * scale;
}

KDN_CODEC_WIDTHS void ScaleAndShift(const int32_t* __restrict sums, float scale,
                                    const float* __restrict mean, size_t count,
                                    float* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(sums[i]) * scale + mean[i];
  }
}

KDN_CODEC_WIDTHS bool RoundToValues(const float* __restrict row, size_t count,
                                    int largest, int8_t* __restrict out) {
  uint32_t most = 0;
  for (size_t i = 0; i < count; ++i) {
    most = std::max(most, std::bit_cast<uint32_t>(row[i]) & kMagnitude);
    // The sum's lowest bits are the integer.
    out[i] = static_cast<int8_t>(
        static_cast<uint8_t>(std::bit_cast<uint32_t>(row[i] + kRounder)));
  }
  // What is not a number has bits above all of them.
  return most < std::bit_cast<uint32_t>(static_cast<float>(largest) + 0.5f);
}

KDN_CODEC_WIDTHS void Coarsen(const int8_t* __restrict values, size_t count,
                              int times, int8_t* __restrict out) {
  for (size_t i = 0; i < count; ++i) out[i] = values[i];
  for (; times > 0; --times) {
    // (value + 1) / 3 rounded down, of a number made positive.
    for (size_t i = 0; i < count; ++i) {
      const int32_t positive = out[i] + 1 + 129;
      out[i] = static_cast<int8_t>((positive * 21846 >> 16) - 43);
    }
  }
}

// In unsigned bytes, whose sums wrap where values are damaged, and which are
// not widened to integers where this becomes vector code.
KDN_CODEC_WIDTHS void RefineByThirds(const int8_t* __restrict refinements,
                                     size_t count, int8_t* __restrict values) {
  for (size_t i = 0; i < count; ++i) {
    const auto value = static_cast<uint8_t>(values[i]);
    const auto refinement = static_cast<uint8_t>(refinements[i]);
    const auto three = static_cast<uint8_t>(value + value + value);
    const auto up = static_cast<uint8_t>(three + refinement);
    const auto down = static_cast<uint8_t>(three - refinement);
    values[i] = static_cast<int8_t>(values[i] < 0 ? down : up);
  }
}

KDN_CODEC_WIDTHS void ToCellMiddles(const int8_t* __restrict shrinks, int cell,
                                    size_t count, int8_t* __restrict values) {
  for (size_t i = 0; i < count; ++i) {
    const auto value = static_cast<uint8_t>(values[i]);
    const auto shrink = static_cast<uint8_t>(shrinks[i]);
    auto middle = static_cast<uint8_t>(value + value + value);
    middle =
        cell == 9 ? static_cast<uint8_t>(middle + middle + middle) : middle;
    middle = values[i] > 0 ? static_cast<uint8_t>(middle - shrink) : middle;
    middle = values[i] < 0 ? static_cast<uint8_t>(middle + shrink) : middle;
    values[i] = static_cast<int8_t>(middle);
  }
}

}  // namespace kdn::codec::kernels
