#include "kv/portable_math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

namespace kdn {
namespace {

constexpr uint64_t kSeed = 15;

// An angle as RoPE has it: a position times a frequency of at most 1.
double SomeAngle(std::mt19937_64& random) {
  const double position = static_cast<double>(random() >> 33);
  const double frequency = std::exp2(-static_cast<double>(random() % 32));
  return static_cast<float>(position * frequency) *
         (random() % 2 == 0 ? 1.0 : -1.0);
}

TEST(PortableMathTest, CosAndSinAreAccurateAtEveryPosition) {
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 200'000; ++i) {
    const double angle = SomeAngle(random);
    const Turn turn = TurnOf(angle);
    const long double exact = angle;
    ASSERT_NEAR(turn.cos, static_cast<double>(cosl(exact)), 0x1p-51) << angle;
    ASSERT_NEAR(turn.sin, static_cast<double>(sinl(exact)), 0x1p-51) << angle;
  }
}

TEST(PortableMathTest, PowersOfThetaAreAccurate) {
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 200'000; ++i) {
    const double theta = std::exp2(static_cast<double>(random() % 4096) / 128);
    const double exponent = static_cast<double>(random() % 1024) / 1024.0;
    const double exact = std::pow(theta, exponent);
    ASSERT_NEAR(PortablePow(theta, exponent), exact, 0x1p-45 * exact)
        << theta << " ^ " << exponent;
    ASSERT_NEAR(PortableLog(theta), std::log(theta), 0x1p-50 * std::log(theta));
  }
}

TEST(PortableMathTest, TheEndsOfTheRangeAreDefined) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(TurnOf(0.0).cos, 1.0);
  EXPECT_EQ(TurnOf(0.0).sin, 0.0);
  for (const double angle : {infinity, -infinity, std::nan("")}) {
    EXPECT_TRUE(std::isnan(TurnOf(angle).cos)) << angle;
    EXPECT_TRUE(std::isnan(TurnOf(angle).sin)) << angle;
  }
  const Turn far = TurnOf(1e300);
  EXPECT_NEAR(far.cos * far.cos + far.sin * far.sin, 1.0, 1e-12);
  EXPECT_EQ(PortablePow(10000.0, 0.0), 1.0);
  EXPECT_EQ(PortableExp(-2000.0), 0.0);
  EXPECT_EQ(PortableExp(2000.0), infinity);
}

// The bits of some results, in one number. A compiler, CPU or library that
// gives another number decodes KV to other bits.
TEST(PortableMathTest, TheBitsAreTheSameEverywhere) {
  std::mt19937_64 random(kSeed);
  uint64_t sum = 0;
  const auto add = [&](double value) {
    sum = std::rotl(sum, 7) ^ std::bit_cast<uint64_t>(value);
  };
  for (int i = 0; i < 100'000; ++i) {
    const double angle =
        std::ldexp(static_cast<double>(random() >> 11), -22 - i % 32);
    const Turn turn = TurnOf(angle);
    add(turn.cos);
    add(turn.sin);
    add(PortablePow(1.0 + angle, -static_cast<double>(i % 128) / 128));
  }
  EXPECT_EQ(sum, 7799413515152394280u);
}

// tests/codec/golden/reference_rules_test.py has the same numbers.
TEST(PortableMathTest, TheBitsAreThoseOfThePythonReference) {
  EXPECT_EQ(TurnOf(1.0).cos, 0x1.14a280fb5068cp-1);
  EXPECT_EQ(TurnOf(1.0).sin, 0x1.aed548f090ceep-1);
  EXPECT_EQ(TurnOf(-123456.789).cos, 0x1.a74d27c41b22ap-5);
  EXPECT_EQ(TurnOf(-123456.789).sin, 0x1.ff50e60ab53f9p-1);
  EXPECT_EQ(PortableLog(500000.0), 0x1.a3ea669a05c01p+3);
  EXPECT_EQ(PortablePow(500000.0, 0.609375), 0x1.734baf9e675c3p+11);
}

}  // namespace
}  // namespace kdn
