#ifndef KDN_CODEC_KERNELS_BF16_ROWS_H_
#define KDN_CODEC_KERNELS_BF16_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "codec/kernels/isa.h"

namespace kdn::codec {

// The last step of decoding one head's row in one pass over registers: integer
// sums to floats, RoPE, rounding to bf16 and the store. Gives
// the bits that the steps by themselves give (vector_kernels.h).
struct Bf16RowJob {
  const int32_t* sums = nullptr;
  float scale = 1.0f;
  const float* mean = nullptr;
  // Of pairs (i, i + pairs); null: nothing turns.
  const float* cos = nullptr;
  const float* sin = nullptr;
  int pairs = 0;
  int head_dim = 0;
  // Whether the row is stored past the caches, if it begins at a cache line.
  bool streams = true;
};

// Whether WriteBf16Row takes rows of such a shape on such a CPU.
bool WritesBf16Rows(int head_dim, int pairs, Isa isa);
// Other threads see the row after kernels::FinishCopyOut. REQUIRES:
// WritesBf16Rows.
void WriteBf16Row(const Bf16RowJob& job, std::byte* out);

}  // namespace kdn::codec

#endif  // KDN_CODEC_KERNELS_BF16_ROWS_H_
