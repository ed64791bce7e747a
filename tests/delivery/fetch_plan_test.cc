#include "delivery/fetch_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/codec/test_chunk.h"

namespace kdn::delivery {
namespace {

constexpr Level kLadder[] = {Level::kBase, Level::kBase1, Level::kBase2};

class FetchPlanTest : public testing::Test {
 protected:
  static codec::ChunkOptions Options() {
    codec::ChunkOptions options;
    options.shape = KvShape{3, 2, 40, 32, Dtype::kBf16};
    options.rotary_dim = 32;
    return options;
  }

  uint64_t BytesAt(Level level) const {
    uint64_t bytes = index_->prefix_bytes();
    const Ladder ladder = LadderOf(*index_, slice_, LevelSet::Of(level));
    for (const uint64_t layer : ladder.rungs[0].layer_bytes) bytes += layer;
    return bytes;
  }
  std::vector<std::vector<Level>> Levels(uint64_t bytes_max, size_t chunks = 1,
                                         LevelSet accept = LevelSet::All()) {
    FetchPlan plan(slice_, accept, {.bytes_max = bytes_max}, chunks);
    return plan.LevelsOf(std::vector<const codec::ObjectIndex*>(chunks, index_),
                         0);
  }

  const codec::EncodedChunk chunk_{Options()};
  const codec::ObjectIndex* const index_ = &*chunk_.index;
  const KvSlice slice_ = {0, 3, 0, 2};
};

TEST_F(FetchPlanTest, WithoutALimitTheBestLevelComes) {
  EXPECT_EQ(Levels(SendBudget::kNoLimit)[0],
            std::vector<Level>(3, Level::kLossless));
  EXPECT_EQ(Levels(SendBudget::kNoLimit, 1,
                   LevelSet::Of(Level::kBase1).With(Level::kBase))[0],
            std::vector<Level>(3, Level::kBase1));
}

TEST_F(FetchPlanTest, ALadderHasTheBytesAndDistortionOfItsLevels) {
  const Ladder ladder = LadderOf(*index_, slice_, index_->header().levels);
  EXPECT_EQ(ladder.tokens, 40);
  EXPECT_EQ(ladder.fixed_bytes, index_->prefix_bytes());
  // The object has no archive level.
  ASSERT_EQ(ladder.rungs.size(), kLevelsByQuality.size() - 1);
  EXPECT_EQ(ladder.rungs.back().level, Level::kBase);
  for (size_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(ladder.rungs.front().layer_distortion[layer], 0.0) << "lossless";
    EXPECT_DOUBLE_EQ(ladder.rungs.back().layer_distortion[layer], 40.0);
  }
}

TEST_F(FetchPlanTest, ABudgetForALevelGetsThatLevel) {
  const LevelSet accept = LevelSet::Of(Level::kBase2).WithRefined();
  for (const Level level : kLadder) {
    EXPECT_EQ(Levels(BytesAt(level), 1, accept)[0],
              std::vector<Level>(3, level))
        << Name(level);
  }
  EXPECT_TRUE(Levels(BytesAt(Level::kBase) - 1, 1, accept)[0].empty())
      << "there is no time for it";
}

TEST_F(FetchPlanTest, BetweenTwoLevelsSomeLayersGetTheBetterOne) {
  const uint64_t bytes = (BytesAt(Level::kBase) + BytesAt(Level::kBase1)) / 2;
  const std::vector<Level> levels =
      Levels(bytes, 1, LevelSet::Of(Level::kBase1).With(Level::kBase))[0];
  ASSERT_EQ(levels.size(), 3u);
  EXPECT_EQ(std::count(levels.begin(), levels.end(), Level::kBase1), 1);
  EXPECT_EQ(std::count(levels.begin(), levels.end(), Level::kBase), 2);
}

TEST_F(FetchPlanTest, ChunksThatAreSentLaterGetTheirShare) {
  const LevelSet accept = LevelSet::Of(Level::kBase2).WithRefined();
  FetchPlan plan(slice_, accept, {.bytes_max = 4 * BytesAt(Level::kBase1)}, 4);
  const codec::ObjectIndex* one[] = {index_};
  EXPECT_EQ(plan.LevelsOf(one, 0)[0], std::vector<Level>(3, Level::kBase1));
  // A miss leaves its share to the other chunks.
  EXPECT_TRUE(plan.LevelsOf({}, 1).empty());
  const codec::ObjectIndex* two[] = {index_, index_};
  uint64_t bytes = 0;
  for (const std::vector<Level>& levels : plan.LevelsOf(two, 0)) {
    ASSERT_EQ(levels.size(), 3u);
    for (int layer = 0; layer < 3; ++layer) {
      EXPECT_NE(levels[layer], Level::kBase) << layer;
      bytes += LadderOf(*index_, slice_, LevelSet::Of(levels[layer]))
                   .rungs[0]
                   .layer_bytes[layer];
    }
  }
  EXPECT_GT(bytes + 2 * index_->prefix_bytes(), 2 * BytesAt(Level::kBase1));
  EXPECT_LE(bytes + 2 * index_->prefix_bytes(), 3 * BytesAt(Level::kBase1));
}

TEST_F(FetchPlanTest, AChunkThatTheEngineComputesFasterIsNotSent) {
  FetchPlan plan(slice_, LevelSet::All(),
                 {.bytes_max = SendBudget::kNoLimit,
                  .bytes_per_token_max = BytesAt(Level::kBase) / 40.0 * 0.9},
                 1);
  const codec::ObjectIndex* one[] = {index_};
  EXPECT_TRUE(plan.LevelsOf(one, 0)[0].empty());
}

TEST_F(FetchPlanTest, LevelsThatTakeTooLongToDecodeAreNotSent) {
  const codec::ObjectIndex* one[] = {index_};
  const LevelSet both = LevelSet::Of(Level::kBase1).With(Level::kBase);
  const auto levels_without = [&](LevelSet too_slow, Reuse reuse) {
    FetchPlan plan(slice_, both,
                   {.bytes_max = SendBudget::kNoLimit,
                    .too_slow = too_slow,
                    .reuse = reuse},
                   2);
    plan.LevelsOf(one, 0);
    return plan.LevelsOf(one, 0)[0];
  };
  for (const Reuse reuse : {Reuse::kAnyChunk, Reuse::kLeadingChunks}) {
    EXPECT_EQ(levels_without(LevelSet::Of(Level::kLossless), reuse),
              std::vector<Level>(3, Level::kBase1));
    EXPECT_EQ(levels_without(LevelSet::Of(Level::kBase1), reuse),
              std::vector<Level>(3, Level::kBase));
    EXPECT_TRUE(levels_without(both, reuse).empty())
        << "the chunk is recomputed";
  }
}

}  // namespace
}  // namespace kdn::delivery
