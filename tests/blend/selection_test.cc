#include "blend/selection.h"

#include <gtest/gtest.h>

#include <numeric>

namespace kdn::blend {
namespace {

// A prefix of 2 tokens, and parts of 4, 6 and 4 tokens behind it.
class SelectionTest : public testing::Test {
 protected:
  SelectionTest() {
    composition_.tokens.resize(16);
    composition_.parts = {
        {0, 2, true}, {2, 6, false}, {6, 12, false}, {12, 16, false}};
    composition_.prefix = 2;
    candidates_ = composition_.Inexact();
    attention_.resize(16);
    k_.resize(candidates_.size());
    v_.resize(candidates_.size());
  }
  std::vector<int> Choose(const Selection& selection, int count) const {
    return Highest(candidates_,
                   selection.Score({.composition = composition_,
                                    .candidates = candidates_,
                                    .attention = attention_,
                                    .k_deviation = k_,
                                    .v_deviation = v_}),
                   count);
  }
  Composition composition_;
  std::vector<int> candidates_;
  std::vector<float> attention_, k_, v_;
};

TEST_F(SelectionTest, HighestTakesTheFirstOfEqualScoresAndSorts) {
  const std::vector<int> tokens = {4, 5, 6, 7};
  const std::vector<float> scores = {1, 3, 3, 2};
  EXPECT_EQ(Highest(tokens, scores, 0), std::vector<int>());
  EXPECT_EQ(Highest(tokens, scores, 1), std::vector<int>({5}));
  EXPECT_EQ(Highest(tokens, scores, 3), std::vector<int>({5, 6, 7}));
  EXPECT_EQ(Highest(tokens, scores, 9), tokens);
}

TEST_F(SelectionTest, HeadsAreTheFirstTokensOfEachPart) {
  EXPECT_EQ(Choose(*PartHeads(), 3), std::vector<int>({2, 6, 12}));
  EXPECT_EQ(Choose(*PartHeads(), 6), std::vector<int>({2, 3, 6, 7, 12, 13}));
}

TEST_F(SelectionTest, EndsAreTheOutermostTokensOfEachPart) {
  EXPECT_EQ(Choose(*PartEnds(), 6), std::vector<int>({2, 5, 6, 11, 12, 15}));
}

TEST_F(SelectionTest, RandomTokensDependOnTheSeedAlone) {
  EXPECT_EQ(Choose(*RandomTokens(1), 5), Choose(*RandomTokens(1), 5));
  // Each token comes about equally often.
  std::vector<int> times(16);
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    for (const int token : Choose(*RandomTokens(seed), 7)) ++times[token];
  }
  for (const int token : candidates_) EXPECT_NEAR(times[token], 500, 80);
}

TEST_F(SelectionTest, DeviationAddsKAndV) {
  k_[3] = 2;             // token 5
  v_[9] = 3;             // token 11
  k_[1] = v_[1] = 1.2f;  // token 3
  EXPECT_EQ(KvDeviation(1)->check_layer(), 1);
  EXPECT_FALSE(KvDeviation(1)->WantsAttention());
  EXPECT_EQ(Choose(*KvDeviation(1), 2), std::vector<int>({3, 11}));
}

TEST_F(SelectionTest, AttentionIsThatOfTheTokenAndNotOfTheCandidatesNumber) {
  attention_[0] = 9;  // the prefix is no candidate
  attention_[7] = 2;
  attention_[15] = 1;
  EXPECT_TRUE(QueryAttention()->WantsAttention());
  EXPECT_EQ(Choose(*QueryAttention(), 2), std::vector<int>({7, 15}));
}

TEST_F(SelectionTest, AProductNeedsBothFactors) {
  attention_[4] = 100;
  v_[5] = 100;  // token 7
  attention_[13] = 1;
  v_[11] = 1;  // token 13
  const auto rule = AttentionTimesDeviation(1);
  EXPECT_TRUE(rule->WantsAttention());
  EXPECT_EQ(rule->check_layer(), 1);
  EXPECT_EQ(Choose(*rule, 1), std::vector<int>({13}));
}

TEST_F(SelectionTest, WholePartsComeByTheirMeanAttention) {
  attention_[8] = 5;   // 5/6 a token
  attention_[14] = 4;  // 4/4 a token
  EXPECT_EQ(Choose(*AttendedParts(), 4), std::vector<int>({12, 13, 14, 15}));
  EXPECT_EQ(Choose(*AttendedParts(), 6),
            std::vector<int>({6, 7, 12, 13, 14, 15}));
}

}  // namespace
}  // namespace kdn::blend
