#include "delivery/pending_asks.h"

#include <gtest/gtest.h>

#include "tests/delivery/query_driver.h"

namespace kdn::delivery {
namespace {

TEST(PendingAsksTest, AnAskEndsOnce) {
  PendingAsks pending(kDeadline);
  const int first = pending.Begin(Ask{kA, {0, 2}});
  const int second = pending.Begin(Ask{kA, {1}});
  EXPECT_EQ(pending.End(first)->items, (std::vector<int>{0, 2}));
  EXPECT_FALSE(pending.End(first).has_value());
  EXPECT_FALSE(pending.empty());
  EXPECT_TRUE(pending.End(second).has_value());
  EXPECT_TRUE(pending.empty());
}

TEST(PendingAsksTest, DeathEndsTheAsksOfOneNode) {
  PendingAsks pending(kDeadline);
  pending.Begin(Ask{kA, {0}});
  const int other = pending.Begin(Ask{kB, {1}});
  pending.Begin(Ask{kA, {2}});
  EXPECT_TRUE(pending.EndOverdue(kNow, AllLive).empty());
  const auto ended =
      pending.EndOverdue(kNow, [](const NodeId& id) { return id != kA; });
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].items, std::vector<int>{0});
  EXPECT_EQ(ended[1].items, std::vector<int>{2});
  EXPECT_TRUE(pending.End(other).has_value());
}

TEST(PendingAsksTest, TheDeadlineEndsAll) {
  PendingAsks pending(kDeadline);
  pending.Begin(Ask{kA, {0}});
  pending.Begin(Ask{kB, {1}});
  EXPECT_EQ(pending.EndOverdue(kDeadline, AllLive).size(), 2u);
  EXPECT_TRUE(pending.empty());
}

TEST(PendingAsksTest, OneWakeUpAtATimeSoonOrAtTheDeadline) {
  PendingAsks pending(kDeadline);
  EXPECT_EQ(pending.TakeWake(kNow)->at, kNow + PendingAsks::kWatch);
  EXPECT_FALSE(pending.TakeWake(kNow).has_value());
  pending.EndOverdue(kNow, AllLive);
  EXPECT_EQ(pending.TakeWake(kDeadline - absl::Milliseconds(1))->at, kDeadline);
}

TEST(PendingAsksTest, ItemsAreGroupedByNodeAndPartition) {
  const std::vector<ShardId> shards = {ShardId(0), ShardId(1), ShardId(2)};
  const auto groups = GroupByPartition(
      {Ask{kB, {0, 1, 2}}, Ask{kA, {0}}, Ask{NodeId("dead"), {1}}}, shards,
      {{kA, 1}, {kB, 2}});
  const std::map<PartitionOfNode, std::vector<int>> expected = {
      {{kA, 0}, {0}}, {{kB, 0}, {0, 2}}, {{kB, 1}, {1}}};
  EXPECT_EQ(groups, expected);
}

}  // namespace
}  // namespace kdn::delivery
