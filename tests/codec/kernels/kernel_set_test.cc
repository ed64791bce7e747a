#include "codec/kernels/kernel_set.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace kdn::codec {
namespace {

// A process chooses once, so each choice runs in a child of its own.
TEST(KernelSet, IsThatOfTheForcedSet) {
  for (const Isa isa : kIsas) {
    EXPECT_EXIT(
        {
          setenv("KDN_ISA", std::string(Name(isa)).c_str(), 1);
          const Isa best = BestIsa();
          std::exit(&kernels::ResolvedKernels() == &kernels::KernelSetOf(best)
                        ? 0
                        : 1);
        },
        testing::ExitedWithCode(0), "")
        << Name(isa);
  }
}

TEST(KernelSet, IsOneForEachWidthOfVectors) {
  using kernels::KernelSetOf;
  if (!Supports(Isa::kAvx512)) GTEST_SKIP() << "this CPU has no AVX-512";
  EXPECT_NE(&KernelSetOf(Isa::kScalar), &KernelSetOf(Isa::kAvx2));
  EXPECT_NE(&KernelSetOf(Isa::kAvx2), &KernelSetOf(Isa::kAvx512));
}

TEST(KernelSetDeathTest, RefusesInstructionsThatTheCpuLacks) {
  for (const Isa isa : kIsas) {
    if (Supports(isa)) continue;
    EXPECT_DEATH(kernels::KernelSetOf(isa), "lacks");
  }
}

}  // namespace
}  // namespace kdn::codec
