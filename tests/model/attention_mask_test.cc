#include "model/attention_mask.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace kdn::model {
namespace {

TEST(AttentionMask, KeepsTheIntervalsOfEachRow) {
  AttentionMask mask;
  mask.AddRow({{0, 5}, {8, 9}});
  mask.AddRow({});
  mask.AddRow({{2, 3}});
  EXPECT_EQ(mask.rows(), 3);
  ASSERT_EQ(mask.Row(0).size(), 2u);
  EXPECT_EQ(mask.Row(0)[1].begin, 8);
  EXPECT_TRUE(mask.Row(1).empty());
  ASSERT_EQ(mask.Row(2).size(), 1u);
  EXPECT_EQ(mask.Row(2)[0].end, 3);
}

TEST(PositionBlocks, HaveABitForEachTokenInAnInterval) {
  std::mt19937 random(3);
  std::vector<int32_t> positions(200);
  for (int round = 0; round < 50; ++round) {
    const int spread = 1 + static_cast<int>(random() % 300);
    for (int32_t& position : positions) {
      position = static_cast<int32_t>(random() % spread);
    }
    PositionBlocks blocks;
    blocks.Assign(positions);
    ASSERT_EQ(blocks.blocks(), 4);
    std::vector<PositionInterval> intervals;
    for (uint32_t i = random() % 4; i > 0; --i) {
      const auto begin = static_cast<int64_t>(random() % 200);
      const auto length = static_cast<int64_t>(random() % 200);
      intervals.push_back({begin, begin + length});
    }
    for (size_t token = 0; token < 256; ++token) {
      bool allowed = false;
      for (const PositionInterval& interval : intervals) {
        allowed |= token < positions.size() &&
                   positions[token] >= interval.begin &&
                   positions[token] < interval.end;
      }
      const uint64_t bits =
          blocks.AllowedBits(intervals, static_cast<int>(token / 64));
      ASSERT_EQ((bits >> (token % 64) & 1) == 1, allowed) << token;
    }
  }
}

TEST(PositionBlocks, TheLastPositionOfAllIsInAnInterval) {
  const std::vector<int32_t> positions = {INT32_MAX};
  PositionBlocks blocks;
  blocks.Assign(positions);
  const PositionInterval all{0, int64_t{INT32_MAX} + 1};
  EXPECT_EQ(blocks.AllowedBits({&all, 1}, 0), 1u);
}

}  // namespace
}  // namespace kdn::model
