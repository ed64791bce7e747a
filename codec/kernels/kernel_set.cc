#include "codec/kernels/kernel_set.h"

#include <algorithm>
#include <bit>

#include "codec/kernels/row_sums.h"
#include "kv/check.h"
#include "kv/dtype.h"

namespace kdn::codec::kernels {
namespace {

// Added to and taken from a float below 2^22 in magnitude, this leaves the
// nearest integer: the sum has no bits for the fraction. Vectorises everywhere,
// unlike a call of nearbyint.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

// The square of a float between these is one too.
constexpr uint32_t kSmall = std::bit_cast<uint32_t>(1e-15f);
constexpr uint32_t kLarge = std::bit_cast<uint32_t>(1e15f);

// The loops, once for each width of vectors. Only element-wise operations, so
// every width gives the same bits.
namespace plain {
#define KDN_WIDTH
#include "codec/kernels/vector_loops.inc"
#undef KDN_WIDTH
}  // namespace plain

#if defined(__x86_64__)

namespace avx2 {
#define KDN_WIDTH __attribute__((target("avx2")))
#include "codec/kernels/vector_loops.inc"
#undef KDN_WIDTH
}  // namespace avx2

namespace avx512 {
#define KDN_WIDTH __attribute__((target("avx512f")))
#include "codec/kernels/vector_loops.inc"
#undef KDN_WIDTH
}  // namespace avx512

#endif

}  // namespace

const KernelSet& KernelSetOf(Isa isa) {
  KDN_CHECK(Supports(isa), "instructions that this CPU lacks");
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return avx512::kKernels;
  if (isa >= Isa::kAvx2) return avx2::kKernels;
#endif
  return plain::kKernels;
}

const KernelSet& ResolvedKernels() {
  static const KernelSet& kernels = KernelSetOf(BestIsa());
  return kernels;
}

}  // namespace kdn::codec::kernels
