#include "delivery/replica_walk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace kdn::delivery {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");
using Orders = std::vector<std::vector<NodeId>>;

TEST(ReplicaWalkTest, GroupsItemsByTheirFirstCandidate) {
  ReplicaWalk walk(Orders{{kA, kB}, {kB}, {kA}});
  const std::vector<Ask> asks = walk.TakeAsks();
  ASSERT_EQ(asks.size(), 2u);
  EXPECT_EQ(asks[0].node, kA);
  EXPECT_EQ(asks[0].items, (std::vector<int>{0, 2}));
  EXPECT_EQ(asks[1].items, (std::vector<int>{1}));
  EXPECT_TRUE(walk.TakeAsks().empty()) << "asked once";
}

TEST(ReplicaWalkTest, MovesOnToTheNextCandidateAndSettlesAfterTheLast) {
  ReplicaWalk walk(Orders{{kA, kB}});
  walk.TakeAsks();
  walk.MoveOn(0, absl::NotFoundError("not at a"));
  EXPECT_FALSE(walk.done());
  const std::vector<Ask> asks = walk.TakeAsks();
  ASSERT_EQ(asks.size(), 1u);
  EXPECT_EQ(asks[0].node, kB);
  walk.MoveOn(0, absl::NotFoundError("not at b"));
  EXPECT_TRUE(walk.done());
  EXPECT_TRUE(absl::IsNotFound(walk.why(0)));
}

TEST(ReplicaWalkTest, AFailureOutweighsAMiss) {
  ReplicaWalk walk(Orders{{kA, kB}});
  walk.TakeAsks();
  walk.MoveOn(0, absl::UnavailableError("a is dead"));
  walk.TakeAsks();
  walk.MoveOn(0, absl::NotFoundError("not at b"));
  EXPECT_TRUE(absl::IsUnavailable(walk.why(0)));
}

TEST(ReplicaWalkTest, AnItemWithoutCandidatesIsAMissAtOnce) {
  ReplicaWalk walk(Orders{{}});
  EXPECT_TRUE(walk.done());
  EXPECT_TRUE(absl::IsNotFound(walk.why(0)));
}

TEST(ReplicaWalkTest, AbandonSettlesEverythingLeft) {
  ReplicaWalk walk(Orders{{kA}, {kB}});
  walk.TakeAsks();
  walk.Found(0);
  walk.Abandon(absl::DeadlineExceededError("late"));
  EXPECT_TRUE(walk.done());
  EXPECT_TRUE(walk.why(0).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(walk.why(1)));
}

// For any answers, an item visits its candidates in order, each of them once,
// and stops at the first candidate that has it.
TEST(ReplicaWalkTest, WalksEveryOrderUnderRandomAnswers) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const std::vector<NodeId> nodes = {kA, kB, kC};
    std::vector<std::vector<NodeId>> orders(random() % 20 + 1);
    for (auto& order : orders) {
      order = nodes;
      std::shuffle(order.begin(), order.end(), random);
      order.resize(random() % 4);
    }
    ReplicaWalk walk(orders);
    std::vector<std::vector<NodeId>> visited(orders.size());
    std::set<int> found;
    while (!walk.done()) {
      for (const Ask& ask : walk.TakeAsks()) {
        for (int item : ask.items) {
          visited[item].push_back(ask.node);
          if (random() % 3 == 0) {
            walk.Found(item);
            found.insert(item);
          } else {
            walk.MoveOn(item, absl::NotFoundError("no"));
          }
          walk.CheckInvariants();
        }
      }
    }
    for (size_t i = 0; i < orders.size(); ++i) {
      const bool hit = found.contains(static_cast<int>(i));
      EXPECT_EQ(walk.why(static_cast<int>(i)).ok(), hit);
      ASSERT_LE(visited[i].size(), orders[i].size());
      EXPECT_TRUE(
          std::equal(visited[i].begin(), visited[i].end(), orders[i].begin()));
      if (!hit) {
        EXPECT_EQ(visited[i].size(), orders[i].size());
      }
    }
  }
}

}  // namespace
}  // namespace kdn::delivery
