#ifndef KDN_CODEC_KERNELS_ISA_H_
#define KDN_CODEC_KERNELS_ISA_H_

namespace kdn::codec {

// The vector instructions that a hand-written loop is compiled for, weakest
// first. Every loop gives the same bits on each. Passed as an argument where a
// loop is chosen: nothing here is global but what the CPU can do.
enum class Isa {
  kScalar,
  kAvx2,
  // F, BW and VL: every server CPU with AVX-512.
  kAvx512,
};

// Whether this CPU and its operating system run the instructions.
bool Supports(Isa isa);

// The strongest that is supported, or the one named by the environment variable
// KDN_ISA (scalar, avx2, avx512) if that is weaker: for benchmarks. Read once.
Isa BestIsa();

}  // namespace kdn::codec

#endif  // KDN_CODEC_KERNELS_ISA_H_
