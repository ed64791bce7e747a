#include "delivery/lookup_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/delivery/query_driver.h"

namespace kdn::delivery {
namespace {

using Orders = std::vector<std::vector<NodeId>>;

LookupTask TaskOf(Orders orders) {
  LookupTask task;
  task.read_orders = std::move(orders);
  for (uint32_t i = 0; i < task.read_orders.size(); ++i) {
    task.shards.push_back(ShardId(i));
  }
  task.partitions = {{kA, 2}, {kB, 2}, {kC, 2}};
  task.deadline = kDeadline;
  return task;
}

LookupResult HitAt(const NodeId& node) {
  LookupResult result;
  result.hit = true;
  result.node = node;
  return result;
}

class Driven : public QueryDriver<LookupSession, AskLookup, AnswerLookup> {
 public:
  explicit Driven(Orders orders) : Driven(TaskOf(std::move(orders))) {}
  explicit Driven(LookupTask task) : QueryDriver(std::move(task)) {}
};

TEST(LookupSessionTest, AChunkIsFoundAtAnyOfItsOwners) {
  Driven driven(Orders{{kA, kB}, {kB, kA}});
  std::vector<AskLookup> asks = driven.Take();
  ASSERT_EQ(asks.size(), 2u);
  EXPECT_EQ(asks[0].node, kA);
  EXPECT_EQ(asks[0].partition, 0u);
  EXPECT_EQ(asks[1].node, kB);
  EXPECT_EQ(asks[1].partition, 1u) << "shard 1 of 2 partitions";
  driven.session.OnAnswer(asks[1].number, {HitAt(kB)});
  driven.session.OnAnswer(asks[0].number, {LookupResult()});
  asks = driven.Take();
  ASSERT_EQ(asks.size(), 1u);
  EXPECT_EQ(asks[0].node, kB);
  EXPECT_EQ(asks[0].chunks, std::vector<int>{0});
  driven.session.OnAnswer(asks[0].number, {LookupResult()});
  EXPECT_TRUE(driven.Take().empty());
  ASSERT_TRUE(driven.answer.has_value());
  EXPECT_FALSE(driven.answer->results[0].hit);
  EXPECT_EQ(driven.answer->results[1].node, kB);
}

TEST(LookupSessionTest, NothingToLookUpIsAnsweredAtOnce) {
  Driven driven(Orders{});
  EXPECT_TRUE(driven.Take().empty());
  EXPECT_TRUE(driven.answer.has_value());
}

TEST(LookupSessionTest, ANodeOutsideTheViewIsPassedOver) {
  LookupTask task = TaskOf(Orders{{kA, kB}});
  task.partitions.erase(kA);
  Driven driven(std::move(task));
  const std::vector<AskLookup> asks = driven.Take();
  ASSERT_EQ(asks.size(), 1u);
  EXPECT_EQ(asks[0].node, kB);
}

TEST(LookupSessionTest, ADeadNodeIsPassedOverAtTheNextWakeUp) {
  Driven driven(Orders{{kA, kB}});
  const int dead = driven.Take()[0].number;
  EXPECT_EQ(driven.wake_at, kNow + PendingAsks::kWatch);
  driven.session.OnTime(driven.wake_at,
                        [](const NodeId& id) { return id != kA; });
  const std::vector<AskLookup> asks = driven.Take(driven.wake_at);
  ASSERT_EQ(asks.size(), 1u);
  EXPECT_EQ(asks[0].node, kB);
  driven.session.OnAnswer(dead, {HitAt(kA)});
  EXPECT_TRUE(driven.Take().empty());
  EXPECT_FALSE(driven.answer.has_value())
      << "the answer of the dead node came too late";
  driven.session.OnAnswer(asks[0].number, {HitAt(kB)});
  driven.Take();
  ASSERT_TRUE(driven.answer.has_value());
  EXPECT_EQ(driven.answer->results[0].node, kB);
}

TEST(LookupSessionTest, ASilentNodeIsAwaitedUntilTheDeadline) {
  Driven driven(Orders{{kA, kB}});
  driven.Take();
  driven.session.OnTime(kDeadline - absl::Milliseconds(1), AllLive);
  EXPECT_TRUE(driven.Take(kDeadline - absl::Milliseconds(1)).empty());
  EXPECT_FALSE(driven.answer.has_value());
  EXPECT_EQ(driven.wake_at, kDeadline);
  driven.session.OnTime(kDeadline, AllLive);
  EXPECT_TRUE(driven.Take(kDeadline).empty());
  ASSERT_TRUE(driven.answer.has_value());
  EXPECT_FALSE(driven.answer->results[0].hit);
}

TEST(LookupSessionTest, AnAnswerForTooFewChunksIsIgnored) {
  LookupTask task = TaskOf(Orders{{kA, kB}, {kA, kB}});
  task.partitions = {{kA, 1}, {kB, 1}};
  Driven driven(std::move(task));
  driven.session.OnAnswer(driven.Take()[0].number, {HitAt(kA)});
  const std::vector<AskLookup> asks = driven.Take();
  ASSERT_EQ(asks.size(), 1u);
  EXPECT_EQ(asks[0].chunks, (std::vector<int>{0, 1}));
}

// Answers, errors and deaths are random. Every chunk is answered once, and is a
// hit exactly when a node said so.
TEST(LookupSessionTest, SettlesEveryChunkUnderRandomFailures) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Orders orders(random() % 20);
    for (auto& order : orders) {
      order = {kA, kB, kC};
      std::shuffle(order.begin(), order.end(), random);
      order.resize(random() % 4);
    }
    Driven driven(orders);
    std::vector<AskLookup> open;
    std::vector<bool> hit(orders.size());
    std::set<NodeId> dead;
    for (absl::Time now = kNow; !driven.answer; now += absl::Milliseconds(1)) {
      for (AskLookup& ask : driven.Take(now)) open.push_back(std::move(ask));
      if (driven.answer) break;
      ASSERT_FALSE(open.empty())
          << "the lookup is not over and waits for nothing";
      std::shuffle(open.begin(), open.end(), random);
      const AskLookup ask = open.back();
      open.pop_back();
      if (random() % 8 == 0) {
        dead.insert(ask.node);
        std::erase_if(open, [&](const AskLookup& other) {
          return dead.contains(other.node);
        });
        driven.session.OnTime(
            now, [&](const NodeId& id) { return !dead.contains(id); });
      } else if (random() % 4 == 0) {
        driven.session.OnNoAnswer(ask.number);
      } else {
        std::vector<LookupResult> found(ask.chunks.size());
        for (size_t i = 0; i < found.size(); ++i) {
          if (random() % 2 == 0) continue;
          found[i] = HitAt(ask.node);
          hit[ask.chunks[i]] = true;
        }
        driven.session.OnAnswer(ask.number, found);
      }
      if (!dead.empty()) {
        // A new ask of a dead node ends at the next wake-up.
        for (AskLookup& fresh : driven.Take(now)) open.push_back(fresh);
        if (driven.answer) break;
        driven.session.OnTime(
            now, [&](const NodeId& id) { return !dead.contains(id); });
        std::erase_if(open, [&](const AskLookup& other) {
          return dead.contains(other.node);
        });
      }
    }
    ASSERT_EQ(driven.answer->results.size(), orders.size());
    for (size_t i = 0; i < orders.size(); ++i) {
      EXPECT_EQ(driven.answer->results[i].hit, hit[i]);
    }
  }
}

}  // namespace
}  // namespace kdn::delivery
