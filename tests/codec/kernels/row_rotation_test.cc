#include "codec/kernels/row_rotation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kv/rope_spec.h"

namespace kdn::codec {
namespace {

struct Case {
  RopePairing pairing;
  double attention_factor;
};

class RowRotationTest : public testing::TestWithParam<Case> {
 protected:
  static constexpr int kRotaryDim = 20;  // no multiple of a vector width
  static constexpr int kHeadDim = 32;

  RowRotationTest() : table_(Spec()) {
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    for (float& value : head_) value = normal(rng);
  }

  static RopeSpec Spec() {
    RopeSpec spec;
    spec.rotary_dim = kRotaryDim;
    spec.pairing = GetParam().pairing;
    spec.attention_factor = GetParam().attention_factor;
    return spec;
  }

  // The indices of the pair's elements.
  static std::pair<int, int> Pair(int pair) {
    return GetParam().pairing == RopePairing::kNeoX
               ? std::pair(pair, pair + kRotaryDim / 2)
               : std::pair(2 * pair, 2 * pair + 1);
  }

  void ExpectTailUntouched(const std::vector<float>& turned) {
    for (int i = kRotaryDim; i < kHeadDim; ++i) EXPECT_EQ(turned[i], head_[i]);
  }

  RopeTable table_;
  std::vector<float> head_ = std::vector<float>(kHeadDim);
  const std::vector<int32_t> positions_ = {0, 1, 17, 4095, 131072};
};

TEST_P(RowRotationTest, ApplyAndUndoAgreeWithTheTable) {
  const RowRotation apply = RowRotation::Apply(table_, positions_);
  const RowRotation undo = RowRotation::Undo(table_, positions_);
  EXPECT_EQ(apply.rotary_dim(), kRotaryDim);
  std::vector<float> cos(table_.pairs());
  std::vector<float> sin(table_.pairs());
  for (size_t token = 0; token < positions_.size(); ++token) {
    ASSERT_TRUE(apply.Moves(token));
    table_.CosSin(positions_[token], cos.data(), sin.data());
    std::vector<float> expected = head_;
    std::vector<float> turned = head_;
    table_.Rotate(cos.data(), sin.data(), expected.data());
    apply.Rotate(token, turned.data());
    ExpectTailUntouched(turned);
    for (int i = 0; i < kHeadDim; ++i) {
      EXPECT_NEAR(turned[i], expected[i], 1e-6) << i;
    }
    table_.Unrotate(cos.data(), sin.data(), expected.data());
    undo.Rotate(token, turned.data());
    ExpectTailUntouched(turned);
    for (int i = 0; i < kHeadDim; ++i) {
      EXPECT_NEAR(turned[i], expected[i], 2e-6) << i;
      EXPECT_NEAR(turned[i], head_[i], 2e-6) << i;
    }
  }
}

// The reference is in double precision, with the fp32 angles that an engine
// used. It does not use the attention factor.
TEST_P(RowRotationTest, BetweenAgreesWithADoublePrecisionReference) {
  const std::vector<int32_t> to = {131072, 1, 16, 70000, 3};
  const RowRotation between = RowRotation::Between(table_, positions_, to);
  for (size_t token = 0; token < positions_.size(); ++token) {
    std::vector<float> turned = head_;
    EXPECT_EQ(between.Moves(token), token != 1);
    if (!between.Moves(token)) continue;
    between.Rotate(token, turned.data());
    ExpectTailUntouched(turned);
    for (int pair = 0; pair < table_.pairs(); ++pair) {
      const float inv_freq = table_.inv_freq()[pair];
      const double angle =
          static_cast<double>(static_cast<float>(to[token]) * inv_freq) -
          static_cast<double>(static_cast<float>(positions_[token]) * inv_freq);
      const auto [i, j] = Pair(pair);
      const double x = head_[i];
      const double y = head_[j];
      EXPECT_NEAR(turned[i], x * std::cos(angle) - y * std::sin(angle), 1e-6);
      EXPECT_NEAR(turned[j], y * std::cos(angle) + x * std::sin(angle), 1e-6);
    }
  }
}

TEST_P(RowRotationTest, MovingEqualsUndoingThenApplying) {
  const std::vector<int32_t> to = {5, 0, 1000, 4096, 65536};
  const RowRotation apply = RowRotation::Apply(table_, positions_);
  const RowRotation apply_there = RowRotation::Apply(table_, to);
  const RowRotation between = RowRotation::Between(table_, positions_, to);
  for (size_t token = 0; token < positions_.size(); ++token) {
    std::vector<float> moved = head_;
    apply.Rotate(token, moved.data());
    between.Rotate(token, moved.data());
    std::vector<float> expected = head_;
    apply_there.Rotate(token, expected.data());
    for (int i = 0; i < kHeadDim; ++i) {
      EXPECT_NEAR(moved[i], expected[i], 3e-6) << token << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, RowRotationTest,
                         testing::Values(Case{RopePairing::kNeoX, 1.0},
                                         Case{RopePairing::kGptJ, 1.0},
                                         Case{RopePairing::kNeoX,
                                              1.2079441541679836},
                                         Case{RopePairing::kGptJ, 0.8}));

}  // namespace
}  // namespace kdn::codec
