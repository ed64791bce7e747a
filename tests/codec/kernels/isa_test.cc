#include "codec/kernels/isa.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "codec/kernels/kernel_set.h"

namespace kdn::codec {
namespace {

TEST(Isa, HasAName) {
  for (const Isa isa : kIsas) EXPECT_EQ(ParseIsa(Name(isa)), isa);
  EXPECT_EQ(ParseIsa("avx"), std::nullopt);
  EXPECT_EQ(ParseIsa(""), std::nullopt);
}

TEST(Isa, HasTheInstructionsOfThoseBeforeIt) {
  EXPECT_TRUE(Supports(Isa::kScalar));
  for (size_t i = 1; i < kIsas.size(); ++i) {
    if (Supports(kIsas[i])) {
      EXPECT_TRUE(Supports(kIsas[i - 1]));
    }
  }
}

// The choice is made once a process: each is made in a child of its own.
void ExpectResolved(const char* wanted, Isa expected) {
  EXPECT_EXIT(
      {
        setenv("KDN_ISA", wanted, 1);
        const bool right =
            BestIsa() == expected &&
            &kernels::ResolvedKernels() == &kernels::KernelSetOf(expected);
        std::exit(right ? 0 : 1);
      },
      testing::ExitedWithCode(0), "")
      << wanted;
}

TEST(Isa, IsTheBestUpToTheOneThatIsForced) {
  Isa best = Isa::kScalar;
  for (const Isa isa : kIsas) {
    if (Supports(isa)) best = isa;
    // Nothing stronger than what was named, nothing that the CPU lacks.
    ExpectResolved(std::string(Name(isa)).c_str(), best);
  }
  ExpectResolved("no such instructions", best);
  ExpectResolved("", best);
}

TEST(KernelSet, IsOneForEachWidthOfVectors) {
  using kernels::KernelSetOf;
  if (!Supports(Isa::kAvx512)) GTEST_SKIP() << "this CPU has no AVX-512";
  EXPECT_NE(&KernelSetOf(Isa::kScalar), &KernelSetOf(Isa::kAvx2));
  EXPECT_NE(&KernelSetOf(Isa::kAvx2), &KernelSetOf(Isa::kAvx512));
}

TEST(KernelSetDeathTest, IsOfInstructionsThatTheCpuHas) {
  for (const Isa isa : kIsas) {
    if (Supports(isa)) continue;
    EXPECT_DEATH(kernels::KernelSetOf(isa), "lacks");
  }
}

}  // namespace
}  // namespace kdn::codec
