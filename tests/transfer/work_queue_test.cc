#include "transfer/work_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace kdn::transfer {
namespace {

constexpr WorkClass kRead = WorkClass::kRead;
constexpr WorkClass kBackground = WorkClass::kBackground;

WorkOrder Of(WorkClass work_class, uint64_t requester, int layer = 0) {
  return {work_class, RequesterId(requester), layer};
}

std::vector<int> TakeAll(WorkQueue<int>& queue) {
  std::vector<int> taken;
  while (!queue.empty()) {
    taken.push_back(queue.TakeNext());
    queue.CheckInvariants();
  }
  return taken;
}

TEST(WorkQueueTest, LowerLayersOfARequesterFirst) {
  WorkQueue<int> queue;
  for (int layer : {3, 1, 2, 0, 1}) {
    queue.Post(Of(kRead, 1, layer),
               10 * layer + static_cast<int>(queue.size()));
  }
  EXPECT_EQ(TakeAll(queue), (std::vector<int>{3, 11, 14, 22, 30}));
}

TEST(WorkQueueTest, ALargeRequesterDoesNotDelayASmallOne) {
  WorkQueue<int> queue;
  for (int i = 0; i < 5; ++i) queue.Post(Of(kRead, 1, i), i);
  EXPECT_EQ(queue.TakeNext(), 0);
  queue.Post(Of(kRead, 2, 7), 100);
  queue.Post(Of(kRead, 2, 8), 101);
  EXPECT_EQ(TakeAll(queue), (std::vector<int>{1, 100, 2, 101, 3, 4}));
}

TEST(WorkQueueTest, BusyClassesShareByWeight) {
  WorkQueue<WorkClass> queue;
  PerClass<int> taken;
  for (int i = 0; i < 1200; ++i) {
    for (const WorkClass work_class : kWorkClasses) {
      queue.Post(Of(work_class, static_cast<uint64_t>(i)), work_class);
    }
    ++taken[queue.TakeNext()];
  }
  EXPECT_NEAR(taken.read, 800, 2);
  EXPECT_NEAR(taken.write, 300, 2);
  EXPECT_NEAR(taken.background, 100, 2);
}

TEST(WorkQueueTest, AnIdleClassGetsNoCreditForThePast) {
  WorkQueue<WorkClass> queue;
  for (int i = 0; i < 1000; ++i) {
    queue.Post(Of(kRead, 1), kRead);
    queue.TakeNext();
  }
  for (int i = 0; i < 100; ++i) {
    queue.Post(Of(kRead, 1), kRead);
    queue.Post(Of(kBackground, 2), kBackground);
  }
  int background = 0;
  for (int i = 0; i < 18; ++i) background += queue.TakeNext() == kBackground;
  EXPECT_LE(background, 3);
  EXPECT_GE(background, 1);
}

TEST(WorkQueueTest, AClassAloneGetsEveryTurn) {
  WorkQueue<int> queue;
  for (int i = 0; i < 10; ++i) queue.Post(Of(kBackground, 1), i);
  EXPECT_EQ(TakeAll(queue).size(), 10u);
}

// Runs random events and checks that each task is taken once, that requesters
// take turns, and that no class with tasks waits longer than its weight allows.
std::vector<int> RunRandom(uint32_t seed) {
  std::mt19937 random(seed);
  WorkQueue<int> queue;
  std::vector<WorkOrder> orders;
  std::map<std::pair<WorkClass, uint64_t>, std::set<std::pair<int, int>>>
      waiting;
  PerClass<int> passed;
  std::vector<int> taken;
  for (int step = 0; step < 4000; ++step) {
    if (random() % 2 == 0 || queue.empty()) {
      const WorkOrder order = Of(kWorkClasses[random() % 3], random() % 4,
                                 static_cast<int>(random() % 8));
      const int task = static_cast<int>(orders.size());
      orders.push_back(order);
      waiting[{order.work_class, order.requester.value()}].insert(
          {order.layer, task});
      queue.Post(order, task);
      queue.CheckInvariants();
      continue;
    }
    const int task = queue.TakeNext();
    queue.CheckInvariants();
    taken.push_back(task);
    const WorkOrder& order = orders[static_cast<size_t>(task)];
    auto& of_requester = waiting[{order.work_class, order.requester.value()}];
    EXPECT_EQ(*of_requester.begin(), std::pair(order.layer, task))
        << "lower layers first, then in order of arrival";
    of_requester.erase({order.layer, task});
    PerClass<bool> has_tasks;
    for (const auto& [who, tasks] : waiting) {
      has_tasks[who.first] |= !tasks.empty();
    }
    for (const WorkClass work_class : kWorkClasses) {
      int& count = passed[work_class];
      count = work_class == order.work_class || !has_tasks[work_class]
                  ? 0
                  : count + 1;
      EXPECT_LE(
          count,
          12 / static_cast<int>(WorkQueue<int>::kWeights[work_class]) + 2);
    }
  }
  return taken;
}

TEST(WorkQueuePropertyTest, KeepsItsPromisesOverRandomEvents) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    EXPECT_EQ(RunRandom(seed), RunRandom(seed)) << "not deterministic";
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace kdn::transfer
