#ifndef KDN_CODEC_CUDA_BYTE_LANES_H_
#define KDN_CODEC_CUDA_BYTE_LANES_H_

#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// Arithmetic on the four bytes of a word at once, where each byte wraps around
// by itself. It does the same to values as the CPU's loops of
// codec/kernels/vector_kernels.h and codec/transform/symbol_bands.h.

inline constexpr uint32_t kByteSigns = 0x80808080u;

KDN_DEVICE uint32_t InEachByte(int value) {
  return static_cast<uint8_t>(value) * 0x01010101u;
}
KDN_DEVICE uint32_t AddBytes(uint32_t a, uint32_t b) {
  return ((a & ~kByteSigns) + (b & ~kByteSigns)) ^ ((a ^ b) & kByteSigns);
}
KDN_DEVICE uint32_t SubtractBytes(uint32_t a, uint32_t b) {
  return ((a | kByteSigns) - (b & ~kByteSigns)) ^ ((a ^ ~b) & kByteSigns);
}
// 0xff where a byte is below zero, else 0.
KDN_DEVICE uint32_t NegativeBytes(uint32_t a) {
  return ((a & kByteSigns) >> 7) * 0xffu;
}
// 0xff where a byte is not zero, else 0.
KDN_DEVICE uint32_t NonZeroBytes(uint32_t a) {
  return NegativeBytes(((a & ~kByteSigns) + ~kByteSigns) | a);
}
// -a in the bytes where `mask` is 0xff, a in the bytes where it is 0.
KDN_DEVICE uint32_t NegateBytes(uint32_t a, uint32_t mask) {
  return SubtractBytes(a ^ mask, mask);
}
KDN_DEVICE uint32_t TripleBytes(uint32_t a) {
  return AddBytes(a, (a & ~kByteSigns) << 1);
}

// See kernels::RefineByThirds.
KDN_DEVICE uint32_t RefineBytes(uint32_t values, uint32_t refinements) {
  return AddBytes(TripleBytes(values),
                  NegateBytes(refinements, NegativeBytes(values)));
}
// See kernels::ToCellMiddles. `cell` is 3 or 9, and each byte of `shrinks` at
// most 127.
KDN_DEVICE uint32_t CellMiddles(uint32_t values, int cell, uint32_t shrinks) {
  uint32_t middles = TripleBytes(values);
  if (cell == 9) middles = TripleBytes(middles);
  const uint32_t positive = NonZeroBytes(values) & ~NegativeBytes(values);
  return AddBytes(middles,
                  NegateBytes(shrinks & NonZeroBytes(values), positive));
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_BYTE_LANES_H_
