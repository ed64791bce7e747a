#ifndef KDN_CODEC_KERNELS_BF16_ROWS_H_
#define KDN_CODEC_KERNELS_BF16_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "kv/isa.h"

namespace kdn::codec {

// The last steps of decoding one head's row, in one pass over registers:
// integer sums become floats, RoPE is applied, and the row is rounded to bf16
// and stored. Gives the same bits as the separate loops of vector_kernels.h.
struct Bf16RowJob {
  // Before RoPE the row is sums[i] * scale + mean[i].
  const int32_t* sums = nullptr;
  float scale = 1.0f;
  const float* mean = nullptr;
  // The cosines and sines of the pairs (i, i + pairs). Null: the row is not
  // rotated.
  const float* cos = nullptr;
  const float* sin = nullptr;
  int pairs = 0;
  int head_dim = 0;
  // Whether to store the row past the caches. Only a row that begins at a cache
  // line can be stored so.
  bool streams = true;
};

// Whether WriteBf16Row can write rows of this shape with the instructions of
// `isa`.
bool WritesBf16Rows(int head_dim, int pairs, Isa isa);
// Writes head_dim elements to `out`. Call kernels::FinishCopyOut before other
// threads read them. REQUIRES: WritesBf16Rows of the job's shape and `isa`.
void WriteBf16Row(const Bf16RowJob& job, Isa isa, std::byte* out);

}  // namespace kdn::codec

#endif  // KDN_CODEC_KERNELS_BF16_ROWS_H_
