#ifndef KDN_CODEC_KERNELS_VECTOR_KERNELS_H_
#define KDN_CODEC_KERNELS_VECTOR_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kv/dtype.h"

// The inner loops of the codec, one head's row at a time. They run with the
// vectors of BestIsa(), see kernel_set.h. Plain C++ that both compilers
// vectorise. Every width gives the same bits: only element-wise operations,
// integer maxima and sums in a fixed order, and contraction to fused
// multiply-add is off for codec/, so that a node's CPU does not show in what it
// delivers.
namespace kdn::codec::kernels {

// Converts a row between an engine's elements and floats, like kv's LoadFloats
// and StoreFloats.
void LoadRow(Dtype dtype, const std::byte* source, size_t count, float* out);
void StoreRow(Dtype dtype, const float* source, size_t count, std::byte* out);

// Copies bytes that this core will not read again soon past its caches, which
// saves fetching the destination's lines first. While at it, asks for the bytes
// `prefetch_ahead` behind the source (0: none), which may be past its end.
// Other threads see them after FinishCopyOut.
void CopyOut(const std::byte* from, size_t bytes, std::byte* to,
             size_t prefetch_ahead = 0);
void FinishCopyOut();

// Rotates pairs (i, i + pairs), in place.
void RotateHalves(const float* cos, const float* sin, size_t pairs,
                  float* head);
// Rotates pairs (2i, 2i + 1), in place.
void RotateNeighbours(const float* cos, const float* sin, size_t pairs,
                      float* head);

// The bits of |value| order like the values, with infinity and NaN above every
// finite one: a maximum over them finds the range and the non-finite at once.
inline constexpr uint32_t kInfinityBits = 0x7f800000u;
uint32_t MaxAbsBits(const float* row, size_t count);
// Per element: maxima[i] = max(maxima[i], bits of |row[i]|).
void RaiseMaxAbsBits(const float* row, size_t count, uint32_t* maxima);

// Largest difference of rows and the sum of their squares, gathered lane by
// lane. In double: the square of a float may be none.
struct Differences {
  static constexpr size_t kLanes = 16;
  double squares[kLanes] = {};
  uint32_t largest[kLanes] = {};  // bits of the magnitude

  double sum_of_squares() const;
  float max() const;
};
void AddDifferences(const float* a, const float* b, size_t count,
                    Differences* differences);
// Of elements, as floats.
void AddDifferences(Dtype dtype, const std::byte* a, const std::byte* b,
                    size_t count, Differences* differences);
// The square of the distance of two rows, to about one part in 10^6.
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
// out[i] = sums[i] * scale + mean[i], rounded after each.
void ScaleAndShift(const int32_t* sums, float scale, const float* mean,
                   size_t count, float* out);
// Rounds to the nearest integers, ties to even. False, and no values, when one
// is larger in magnitude than `largest` (at most 127) or not a number.
bool RoundToValues(const float* row, size_t count, int largest, int8_t* out);
// Each value's third, rounded to the nearest, `times` times over.
void Coarsen(const int8_t* values, size_t count, int times, int8_t* out);
// value = 3 value + refinement, the refinement being in the value's sense.
// Wraps around.
void RefineByThirds(const int8_t* refinements, size_t count, int8_t* values);
// value = cell * value (3 or 9), less shrink in magnitude unless it is zero.
// Wraps around.
void ToCellMiddles(const int8_t* shrinks, int cell, size_t count,
                   int8_t* values);

}  // namespace kdn::codec::kernels

#endif  // KDN_CODEC_KERNELS_VECTOR_KERNELS_H_
