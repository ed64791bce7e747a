#ifndef KDN_CODEC_KERNELS_VECTOR_KERNELS_H_
#define KDN_CODEC_KERNELS_VECTOR_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kv/dtype.h"

// The inner loops of the codec, each for one head's row. They are plain C++
// that both compilers vectorise, and run with the vectors of BestIsa(), see
// kernel_set.h. Every width gives the same bits, so that a delivery does not
// depend on the node's CPU: the loops use element-wise operations, integer
// maxima and sums in a fixed order only, and codec/ is compiled without
// contraction to fused multiply-add.
namespace kdn::codec::kernels {

// Converts a row between an engine's elements and floats, like kv's LoadFloats
// and StoreFloats.
void LoadRow(Dtype dtype, const std::byte* source, size_t count, float* out);
void StoreRow(Dtype dtype, const float* source, size_t count, std::byte* out);

// Copies bytes past this core's caches, for bytes that the core will not read
// again soon. This saves fetching the destination's lines first. A copy that is
// not of whole cache lines goes through the caches. Also prefetches the source
// `prefetch_ahead` bytes ahead of the copy (0: does not), even past the end of
// the source. Call FinishCopyOut before other threads read the copy.
void CopyOut(const std::byte* from, size_t bytes, std::byte* to,
             size_t prefetch_ahead = 0);
void FinishCopyOut();

// Rotates pairs (i, i + pairs), in place.
void RotateHalves(const float* cos, const float* sin, size_t pairs,
                  float* head);
// Rotates pairs (2i, 2i + 1), in place.
void RotateNeighbours(const float* cos, const float* sin, size_t pairs,
                      float* head);

// The bits of |value|, as integers, have the order of the values, with infinity
// and NaN above every finite value. So one maximum finds both the range of a
// row and values that are not finite.
inline constexpr uint32_t kInfinityBits = 0x7f800000u;
// The largest bits of |row[i]|.
uint32_t MaxAbsBits(const float* row, size_t count);
// Per element: maxima[i] = max(maxima[i], bits of |row[i]|).
void RaiseMaxAbsBits(const float* row, size_t count, uint32_t* maxima);

// The largest difference between rows and the sum of the squared differences,
// gathered lane by lane. The squares are doubles, because the square of a float
// may be too large or too small for a float.
struct Differences {
  static constexpr size_t kLanes = 16;
  double squares[kLanes] = {};
  uint32_t largest[kLanes] = {};  // bits of the largest magnitude

  double sum_of_squares() const;
  float max() const;
};
void AddDifferences(const float* a, const float* b, size_t count,
                    Differences* differences);
// The same for rows of elements of `dtype`.
void AddDifferences(Dtype dtype, const std::byte* a, const std::byte* b,
                    size_t count, Differences* differences);
// The squared distance of two rows, to about one part in 10^6.
double SquaredDistance(const float* a, const float* b, size_t count);

// Rounds row[i] / scale to the nearest integer, ties to even.
// REQUIRES: |row[i] / scale| < 127.5.
void QuantiseByOne(const float* row, float scale, size_t count, int8_t* out);
void QuantiseByEach(const float* row, const float* scales, size_t count,
                    int8_t* out);
void DequantiseByOne(const int8_t* row, float scale, size_t count, float* out);
void DequantiseByEach(const int8_t* row, const float* scales, size_t count,
                      float* out);

// out[i] = (row[i] - mean[i]) * scale.
void Centre(const float* row, const float* mean, float scale, size_t count,
            float* out);
// out[i] = sums[i] * scale + mean[i]; product and sum are rounded separately.
void ScaleAndShift(const int32_t* sums, float scale, const float* mean,
                   size_t count, float* out);
// Rounds to the nearest integers, ties to even. False when an integer is larger
// in magnitude than `largest` (at most 127) or a value is NaN; then `out` is
// unusable.
bool RoundToValues(const float* row, size_t count, int largest, int8_t* out);
// Divides each value by 3 and rounds it to the nearest integer, `times` times.
void Coarsen(const int8_t* values, size_t count, int times, int8_t* out);
// values[i] = 3 * values[i] + refinements[i], with a minus sign before the
// refinement where values[i] is below zero. Wraps around.
void RefineByThirds(const int8_t* refinements, size_t count, int8_t* values);
// values[i] = cell * values[i], moved towards zero by shrinks[i] unless it is
// zero. `cell` is 3 or 9. Wraps around.
void ToCellMiddles(const int8_t* shrinks, int cell, size_t count,
                   int8_t* values);

}  // namespace kdn::codec::kernels

#endif  // KDN_CODEC_KERNELS_VECTOR_KERNELS_H_
