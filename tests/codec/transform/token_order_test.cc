#include "codec/transform/token_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "codec/calibration/calibration.h"
#include "codec/transform/symbol_bands.h"

namespace kdn::codec {
namespace {

TEST(TokenOrder, TokensOfAClassFollowEachOther) {
  const std::vector<uint8_t> classes = {2, 0, 2, 0, 5};
  const TokenOrder order(classes);
  EXPECT_EQ(order.tokens(), 5);
  EXPECT_EQ(order.rows(), 3 * kTokenBlock);
  ASSERT_EQ(order.runs().size(), 3u);
  EXPECT_EQ(order.runs()[1].token_class, 2);
  EXPECT_EQ(order.runs()[1].first_row, kTokenBlock);
  EXPECT_EQ(order.runs()[1].tokens, 2);
  EXPECT_EQ(order.RowOf(0), kTokenBlock);
  EXPECT_EQ(order.RowOf(2), kTokenBlock + 1);
  for (int token = 0; token < 5; ++token) {
    EXPECT_EQ(order.TokenOf(order.RowOf(token)), token);
    EXPECT_EQ(order.RunOfRow(order.RowOf(token)).token_class, classes[token]);
  }
}

std::array<int, kStreamClasses> CountsOf(const std::vector<uint8_t>& classes) {
  std::array<int, kStreamClasses> counts{};
  for (const uint8_t token_class : classes) ++counts[token_class];
  return counts;
}

TEST(RoundClasses, EveryClassButTheLastIsWhole) {
  std::mt19937 random(4);
  for (int round = 0; round < 300; ++round) {
    std::normal_distribution<float> normal(1.0f, 0.1f * (round % 20));
    std::vector<float> wanted(1 + random() % 300);
    for (float& x : wanted) x = normal(random);
    const std::vector<uint8_t> classes = RoundClasses(wanted);
    const auto counts = CountsOf(classes);
    int left = static_cast<int>(wanted.size());
    for (const int count : counts) {
      left -= count;
      EXPECT_TRUE(count % kTokenBlock == 0 || left == 0) << "round " << round;
    }
    for (size_t i = 0; i < wanted.size(); ++i) {
      const float nearest =
          std::round(std::clamp(wanted[i], 0.0f, kStreamClasses - 1.0f));
      EXPECT_LE(classes[i], nearest + 1)
          << "round " << round << ": " << wanted[i];
    }
  }
}

// Tokens that a rounded class leaves over do not skip the next class.
TEST(RoundClasses, AFarTokenDrawsNoOthersWithIt) {
  std::vector<float> wanted(100, 1.0f);
  wanted[0] = 3.0f;
  const auto counts = CountsOf(RoundClasses(wanted));
  EXPECT_EQ(counts[0], 0);
  EXPECT_GE(counts[1], 96);
  EXPECT_LE(counts[3], 1);
}

TEST(RoundClasses, TokensThatAreAlikeHaveOneClass) {
  EXPECT_EQ(RoundClasses(std::vector<float>(13, 0.2f)),
            std::vector<uint8_t>(13, 0));
}

}  // namespace
}  // namespace kdn::codec
