#include "placement/rendezvous.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

namespace kdn::placement {
namespace {

// Keeps the leading 53 bits, which are the bits that NegativeLog uses.
uint64_t Leading53(uint64_t bits) {
  const int spare = 11 - std::countl_zero(bits);
  return spare > 0 ? bits >> spare << spare : bits;
}

double ErrorOf(uint64_t bits) {
  const long double u = static_cast<long double>(Leading53(bits)) * 0x1p-64L;
  const long double exact = -std::log(u);
  return static_cast<double>(std::abs(NegativeLog(bits) - exact) / exact);
}

TEST(RendezvousTest, NegativeLogIsTheLogarithm) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 100000; ++i) {
    const uint64_t bits = (random() | 1) >> (random() % 60);
    EXPECT_LT(ErrorOf(bits | 1), 1e-14) << bits;
  }
}

TEST(RendezvousTest, NegativeLogIsExactNextToOne) {
  for (int shift = 1; shift < 53; ++shift) {
    EXPECT_LT(ErrorOf(~uint64_t{0} - (~uint64_t{0} >> shift)), 1e-14) << shift;
  }
}

TEST(RendezvousTest, NegativeLogFallsAsItsArgumentGrows) {
  // Crosses both borders of the range reduction, 1/2 and 1/sqrt 2.
  for (uint64_t seam : {uint64_t{1} << 63, uint64_t{0xb504f333f9de6484}}) {
    for (uint64_t step = 1; step < 64; ++step) {
      const uint64_t bits = seam + ((step - 32) << 20);
      EXPECT_GE(NegativeLog(bits), NegativeLog(bits + (1 << 20))) << bits;
    }
  }
}

TEST(RendezvousTest, NegativeLogIsPositiveAndFiniteAtTheEnds) {
  for (uint64_t bits : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}}) {
    EXPECT_GT(NegativeLog(bits), 0.0);
    EXPECT_TRUE(std::isfinite(NegativeLog(bits)));
  }
}

// Two builds that disagree here would look for one chunk on different nodes.
TEST(RendezvousTest, RanksNeverChange) {
  EXPECT_EQ(HashOf("n1"), 17934566338607214163ull);
  EXPECT_EQ(RankOf(HashOf("n1"), 0, 1.0), 0x1.e898282554d53p+0);
  EXPECT_EQ(RankOf(HashOf("n2"), 65535, 2.5), 0x1.c8003941683dbp+0);
}

}  // namespace
}  // namespace kdn::placement
