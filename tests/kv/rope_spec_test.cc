#include "kv/rope_spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kdn {
namespace {

RopeSpec Plain(int rotary_dim) {
  RopeSpec spec;
  spec.rotary_dim = rotary_dim;
  return spec;
}

std::vector<float> Rotated(const RopeTable& table, int32_t position,
                           std::vector<float> head) {
  std::vector<float> cos(table.pairs());
  std::vector<float> sin(table.pairs());
  table.CosSin(position, cos.data(), sin.data());
  table.Rotate(cos.data(), sin.data(), head.data());
  return head;
}

TEST(RopeTest, PlainFrequenciesFollowTheFormula) {
  const RopeTable table(Plain(8));
  ASSERT_EQ(table.pairs(), 4);
  for (int i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(table.inv_freq()[i], std::pow(10000.0, -2.0 * i / 8));
  }
}

// Values of Llama 3.1 8B (theta 5e5, factor 8, low 1, high 4, original 8192).
TEST(RopeTest, Llama3KeepsShortWavelengthsAndStretchesLongOnes) {
  RopeSpec spec = Plain(128);
  spec.theta = 500000;
  const RopeTable plain(spec);
  spec.scaling = RopeScaling::kLlama3;
  spec.factor = 8;
  spec.low_freq_factor = 1;
  spec.high_freq_factor = 4;
  spec.original_max_position = 8192;
  ASSERT_TRUE(Validate(spec, 128).ok());
  const RopeTable table(spec);
  EXPECT_FLOAT_EQ(table.inv_freq()[0], plain.inv_freq()[0]);
  EXPECT_FLOAT_EQ(table.inv_freq()[63], plain.inv_freq()[63] / 8);
  for (int i = 1; i < 64; ++i) {
    EXPECT_LT(table.inv_freq()[i], table.inv_freq()[i - 1]);
    EXPECT_LE(table.inv_freq()[i], plain.inv_freq()[i]);
  }
}

TEST(RopeTest, YarnInterpolatesOnlySlowDimensions) {
  RopeSpec spec = Plain(64);
  const RopeTable plain(spec);
  spec.scaling = RopeScaling::kYarn;
  spec.factor = 4;
  spec.original_max_position = 4096;
  const RopeTable table(spec);
  EXPECT_FLOAT_EQ(table.inv_freq()[0], plain.inv_freq()[0]);
  EXPECT_FLOAT_EQ(table.inv_freq()[31], plain.inv_freq()[31] / 4);
}

TEST(RopeTest, LinearDividesEveryFrequency) {
  RopeSpec spec = Plain(16);
  const RopeTable plain(spec);
  spec.scaling = RopeScaling::kLinear;
  spec.factor = 2;
  const RopeTable table(spec);
  for (int i = 0; i < 8; ++i) {
    EXPECT_FLOAT_EQ(table.inv_freq()[i], plain.inv_freq()[i] / 2);
  }
}

TEST(RopeTest, PairingSaysWhichElementsTurnTogether) {
  RopeSpec spec = Plain(4);
  const std::vector<float> head = {1, 0, 0, 0, 9};
  const std::vector<float> neox = Rotated(RopeTable(spec), 1, head);
  EXPECT_FLOAT_EQ(neox[2], std::sin(1.0f));
  EXPECT_EQ(neox[1], 0);
  spec.pairing = RopePairing::kGptJ;
  const std::vector<float> gptj = Rotated(RopeTable(spec), 1, head);
  EXPECT_FLOAT_EQ(gptj[1], std::sin(1.0f));
  EXPECT_EQ(gptj[2], 0);
  EXPECT_EQ(gptj[4], 9) << "elements from rotary_dim on are not rotated";
}

TEST(RopeTest, UnrotateUndoesRotateWithItsAttentionFactor) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  RopeSpec spec = Plain(32);
  spec.attention_factor = 1.25;
  const RopeTable table(spec);
  std::vector<float> cos(16);
  std::vector<float> sin(16);
  for (int32_t position : {0, 1, 77, 100000}) {
    std::vector<float> head(40);
    for (float& x : head) x = normal(random);
    std::vector<float> turned = head;
    table.CosSin(position, cos.data(), sin.data());
    table.Rotate(cos.data(), sin.data(), turned.data());
    table.Unrotate(cos.data(), sin.data(), turned.data());
    for (size_t i = 0; i < head.size(); ++i) {
      EXPECT_NEAR(turned[i], head[i], 1e-5) << "seed 7, position " << position;
    }
  }
}

TEST(RopeTest, DeltaTurnsFromOnePositionToAnother) {
  RopeSpec spec = Plain(32);
  spec.attention_factor = 1.5;
  const RopeTable table(spec);
  std::vector<float> head(32);
  for (int i = 0; i < 32; ++i) head[i] = static_cast<float>(i) - 15;
  std::vector<float> cos(16);
  std::vector<float> sin(16);
  table.DeltaCosSin(500, 4, cos.data(), sin.data());
  std::vector<float> moved = Rotated(table, 500, head);
  table.Rotate(cos.data(), sin.data(), moved.data());
  const std::vector<float> wanted = Rotated(table, 4, head);
  for (int i = 0; i < 32; ++i) EXPECT_NEAR(moved[i], wanted[i], 1e-4);
}

TEST(RopeTest, RefusesInvalidSpecs) {
  EXPECT_TRUE(Validate(Plain(64), 64).ok());
  EXPECT_FALSE(Validate(Plain(66), 64).ok());
  EXPECT_TRUE(Validate(Plain(0), 64).ok()) << "a model without rotation";
  EXPECT_FALSE(Validate(Plain(-2), 64).ok());
  EXPECT_FALSE(Validate(Plain(63), 64).ok());
  RopeSpec spec = Plain(64);
  spec.theta = NAN;
  EXPECT_FALSE(Validate(spec, 64).ok());
  spec = Plain(64);
  spec.factor = 0;
  EXPECT_FALSE(Validate(spec, 64).ok());
  spec = Plain(64);
  spec.scaling = RopeScaling::kYarn;
  EXPECT_FALSE(Validate(spec, 64).ok()) << "needs the original length";
  spec = Plain(64);
  spec.scaling = static_cast<RopeScaling>(77);
  EXPECT_FALSE(Validate(spec, 64).ok());
  spec = Plain(64);
  spec.beta_fast = NAN;
  EXPECT_FALSE(Validate(spec, 64).ok()) << "unused, but in the fingerprint";
}

}  // namespace
}  // namespace kdn
