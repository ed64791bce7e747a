#include "delivery/read_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace kdn::delivery {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");
const NodeId kD("d");
using Nodes = std::vector<NodeId>;

PeerGrade Failing() { return {.is_failing = true, .latency = std::nullopt}; }
PeerGrade Answers(absl::Duration latency) {
  return {.is_failing = false, .latency = latency};
}

TEST(ReadOrderTest, TheOwnersInOrderButTheOwnCopyFirst) {
  EXPECT_EQ(ReadOrder({kA, kB, kC}, kD, 2, {}), (Nodes{kA, kB, kC}));
  EXPECT_EQ(ReadOrder({kA, kB, kC}, kB, 2, {}), (Nodes{kB, kA, kC}));
  EXPECT_EQ(ReadOrder({kA, kB, kC}, kC, 2, {}), (Nodes{kA, kB, kC}))
      << "the third of two holders has no copy";
  EXPECT_EQ(ReadOrder({}, kC, 2, {}), Nodes{});
}

TEST(ReadOrderTest, AFailingPeerIsAskedLast) {
  EXPECT_EQ(ReadOrder({kA, kB, kC}, kD, 2, {{kA, Failing()}}),
            (Nodes{kB, kC, kA}));
  EXPECT_EQ(ReadOrder({kA, kB, kC}, kD, 2, {{kA, Failing()}, {kB, Failing()}}),
            (Nodes{kC, kA, kB}))
      << "in owner order";
}

TEST(ReadOrderTest, TheOwnCopyStaysFirst) {
  EXPECT_EQ(ReadOrder({kA, kB, kC}, kB, 2, {{kB, Failing()}, {kA, Failing()}}),
            (Nodes{kB, kC, kA}));
}

TEST(ReadOrderTest, OnlyAMuchSlowerHolderGoesBehindTheOthers) {
  const absl::Duration fast = absl::Milliseconds(10);
  const absl::Duration limit = kSlowFactor * fast + kSlowMargin;
  const auto order = [&](absl::Duration first) {
    return ReadOrder({kA, kB, kC}, kD, 2,
                     {{kA, Answers(first)}, {kB, Answers(fast)}});
  };
  EXPECT_EQ(order(limit), (Nodes{kA, kB, kC}));
  EXPECT_EQ(order(limit + absl::Milliseconds(1)), (Nodes{kB, kA, kC}))
      << "still before an owner that is no holder";
}

TEST(ReadOrderTest, OneKnownLatencyChangesNothing) {
  EXPECT_EQ(ReadOrder({kA, kB, kC}, kD, 2, {{kA, Answers(absl::Hours(1))}}),
            (Nodes{kA, kB, kC}));
  EXPECT_EQ(ReadOrder({kA, kB, kC}, kD, 2,
                      {{kA, Answers(absl::Hours(1))},
                       {kC, Answers(absl::Milliseconds(1))}}),
            (Nodes{kA, kB, kC}))
      << "the third owner holds no copy";
}

// For any grades, the order has the same nodes with the own copy first. Failing
// peers come after all others, and peers of equal grades are in owner order.
// The same grades give the same order.
TEST(ReadOrderTest, AnOrderIsAPermutationThatFollowsTheGrades) {
  for (uint32_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Nodes owners = {kA, kB, kC, kD};
    std::shuffle(owners.begin(), owners.end(), random);
    owners.resize(random() % 5);
    const NodeId self = random() % 2 == 0 ? kA : NodeId("e");
    const int replicas = static_cast<int>(random() % 3) + 1;
    PeerGrades grades;
    for (const NodeId& node : {kA, kB, kC, kD}) {
      if (random() % 3 == 0) continue;
      grades[node].is_failing = random() % 3 == 0;
      if (random() % 2 == 0) {
        grades[node].latency =
            absl::Milliseconds(random() % 2 == 0 ? 1 : random() % 1000);
      }
    }
    const Nodes order = ReadOrder(owners, self, replicas, grades);
    EXPECT_EQ(order, ReadOrder(owners, self, replicas, grades));
    EXPECT_TRUE(std::is_permutation(order.begin(), order.end(), owners.begin(),
                                    owners.end()));
    const auto place = [&](const NodeId& node) {
      return std::find(owners.begin(), owners.end(), node) - owners.begin();
    };
    const auto is_failing = [&](const NodeId& node) {
      return node != self && grades.contains(node) && grades[node].is_failing;
    };
    if (place(self) < std::min<ptrdiff_t>(replicas, std::ssize(owners))) {
      EXPECT_EQ(order.front(), self);
    }
    for (size_t i = 1; i < order.size(); ++i) {
      const NodeId& before = order[i - 1];
      const NodeId& after = order[i];
      EXPECT_LE(is_failing(before), is_failing(after));
      const bool alike = !grades.contains(before) && !grades.contains(after);
      if (alike && before != self) {
        EXPECT_LT(place(before), place(after));
      }
    }
  }
}

}  // namespace
}  // namespace kdn::delivery
