#include "codec/kernels/kernel_set.h"

#include <algorithm>
#include <bit>

#include "codec/kernels/row_sums.h"
#include "kv/check.h"
#include "kv/dtype.h"

namespace kdn::codec::kernels {
namespace {

// Adding this to a float below 2^22 in magnitude and subtracting it again
// rounds the float to the nearest integer, because the sum has no bits for a
// fraction. Compilers vectorise this everywhere, unlike a call of nearbyint.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

// The bits of two bounds: the square of a float between them is a normal float.
constexpr uint32_t kSmall = std::bit_cast<uint32_t>(1e-15f);
constexpr uint32_t kLarge = std::bit_cast<uint32_t>(1e15f);

// The loops, compiled once for each width of vectors. Every width gives the
// same bits, because operations are element-wise and sums have a fixed order.
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
