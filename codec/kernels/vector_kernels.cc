#include "codec/kernels/vector_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "codec/kernels/kernel_set.h"
#include "codec/kernels/row_sums.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace kdn::codec::kernels {
namespace {

bool IsAligned(const std::byte* row, size_t alignment) {
  return reinterpret_cast<uintptr_t>(row) % alignment == 0;
}

}  // namespace

void LoadRow(Dtype dtype, const std::byte* source, size_t count, float* out) {
  if (dtype == Dtype::kBf16 && IsAligned(source, alignof(uint16_t))) {
    return ResolvedKernels().load_bf16(
        reinterpret_cast<const uint16_t*>(source), count, out);
  }
  LoadFloats(dtype, source, count, out);
}

void StoreRow(Dtype dtype, const float* source, size_t count, std::byte* out) {
  if (dtype == Dtype::kBf16 && IsAligned(out, alignof(uint16_t))) {
    return ResolvedKernels().store_bf16(source, count,
                                        reinterpret_cast<uint16_t*>(out));
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
      // As an integer, because a pointer must not leave the source's memory.
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

void RotateHalves(const float* cos, const float* sin, size_t pairs,
                  float* head) {
  ResolvedKernels().rotate_halves(cos, sin, pairs, head);
}

void RotateNeighbours(const float* cos, const float* sin, size_t pairs,
                      float* head) {
  ResolvedKernels().rotate_neighbours(cos, sin, pairs, head);
}

uint32_t MaxAbsBits(const float* row, size_t count) {
  return ResolvedKernels().max_abs_bits(row, count);
}

void RaiseMaxAbsBits(const float* row, size_t count, uint32_t* maxima) {
  ResolvedKernels().raise_max_abs_bits(row, count, maxima);
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

template <typename Element>
void Add(const Element* a, const Element* b, size_t count,
         Differences* differences) {
  float squares[Differences::kLanes] = {};
  uint32_t largest[Differences::kLanes] = {};
  const KernelSet& kernels = ResolvedKernels();
  if constexpr (std::is_same_v<Element, float>) {
    kernels.sum_floats(a, b, count, squares, largest);
  } else {
    kernels.sum_bf16(a, b, count, squares, largest);
  }
  if (kernels.add_sums(squares, largest, differences)) return;
  SumDifferences(a, b, count, differences->squares, largest);
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
  const float sum = ResolvedKernels().sum_of_squares(a, b, count);
  if (sum > 1e-30f && sum < 1e30f) return sum;
  // The square of a float may be too large or too small for a float.
  Differences differences;
  AddDifferences(a, b, count, &differences);
  return differences.sum_of_squares();
}

void QuantiseByOne(const float* row, float scale, size_t count, int8_t* out) {
  ResolvedKernels().quantise_by_one(row, scale, count, out);
}

void QuantiseByEach(const float* row, const float* scales, size_t count,
                    int8_t* out) {
  ResolvedKernels().quantise_by_each(row, scales, count, out);
}

void DequantiseByOne(const int8_t* row, float scale, size_t count, float* out) {
  ResolvedKernels().dequantise_by_one(row, scale, count, out);
}

void DequantiseByEach(const int8_t* row, const float* scales, size_t count,
                      float* out) {
  ResolvedKernels().dequantise_by_each(row, scales, count, out);
}

void Centre(const float* row, const float* mean, float scale, size_t count,
            float* out) {
  ResolvedKernels().centre(row, mean, scale, count, out);
}

void ScaleAndShift(const int32_t* sums, float scale, const float* mean,
                   size_t count, float* out) {
  ResolvedKernels().scale_and_shift(sums, scale, mean, count, out);
}

bool RoundToValues(const float* row, size_t count, int largest, int8_t* out) {
  return ResolvedKernels().round_to_values(row, count, largest, out);
}

void Coarsen(const int8_t* values, size_t count, int times, int8_t* out) {
  ResolvedKernels().coarsen(values, count, times, out);
}

void RefineByThirds(const int8_t* refinements, size_t count, int8_t* values) {
  ResolvedKernels().refine_by_thirds(refinements, count, values);
}

void ToCellMiddles(const int8_t* shrinks, int cell, size_t count,
                   int8_t* values) {
  ResolvedKernels().to_cell_middles(shrinks, cell, count, values);
}

}  // namespace kdn::codec::kernels
