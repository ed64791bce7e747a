#ifndef KDN_CODEC_KERNELS_KERNEL_SET_H_
#define KDN_CODEC_KERNELS_KERNEL_SET_H_

#include <cstddef>
#include <cstdint>

#include "codec/kernels/vector_kernels.h"
#include "kv/isa.h"

namespace kdn::codec::kernels {

// The loops behind vector_kernels.h, which documents them, compiled for the
// vectors of one instruction set. Immutable; usable on any thread.
struct KernelSet {
  void (*load_bf16)(const uint16_t* source, size_t count, float* out);
  void (*store_bf16)(const float* source, size_t count, uint16_t* out);
  void (*rotate_halves)(const float* cos, const float* sin, size_t pairs,
                        float* head);
  void (*rotate_neighbours)(const float* cos, const float* sin, size_t pairs,
                            float* head);
  uint32_t (*max_abs_bits)(const float* row, size_t count);
  void (*raise_max_abs_bits)(const float* row, size_t count, uint32_t* maxima);
  // Add the squared differences of two rows to `squares`, and raise `largest`
  // to the bits of the largest difference, in Differences::kLanes lanes.
  void (*sum_floats)(const float* a, const float* b, size_t count,
                     float* squares, uint32_t* largest);
  void (*sum_bf16)(const uint16_t* a, const uint16_t* b, size_t count,
                   float* squares, uint32_t* largest);
  // Adds such sums to `differences`. Returns false, and leaves out the squares,
  // if a square may have been too large or too small for a float.
  bool (*add_sums)(const float* squares, const uint32_t* largest,
                   Differences* differences);
  float (*sum_of_squares)(const float* a, const float* b, size_t count);
  void (*quantise_by_one)(const float* row, float scale, size_t count,
                          int8_t* out);
  void (*quantise_by_each)(const float* row, const float* scales, size_t count,
                           int8_t* out);
  void (*dequantise_by_one)(const int8_t* row, float scale, size_t count,
                            float* out);
  void (*dequantise_by_each)(const int8_t* row, const float* scales,
                             size_t count, float* out);
  void (*centre)(const float* row, const float* mean, float scale, size_t count,
                 float* out);
  void (*scale_and_shift)(const int32_t* sums, float scale, const float* mean,
                          size_t count, float* out);
  bool (*round_to_values)(const float* row, size_t count, int largest,
                          int8_t* out);
  void (*coarsen)(const int8_t* values, size_t count, int times, int8_t* out);
  void (*refine_by_thirds)(const int8_t* refinements, size_t count,
                           int8_t* values);
  void (*to_cell_middles)(const int8_t* shrinks, int cell, size_t count,
                          int8_t* values);
};

// The loops for an instruction set. REQUIRES: Supports(isa).
const KernelSet& KernelSetOf(Isa isa);
// The loops that this process uses: KernelSetOf(BestIsa()).
const KernelSet& ResolvedKernels();

}  // namespace kdn::codec::kernels

#endif  // KDN_CODEC_KERNELS_KERNEL_SET_H_
