#include "transfer/work_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <vector>

#include "absl/synchronization/notification.h"

namespace kdn::transfer {
namespace {

constexpr WorkOrder kAnyOrder{WorkClass::kRead};

TEST(WorkPoolTest, RunsLowerLayersFirstAndRequestersInTurns) {
  std::vector<int> ran;
  {
    WorkPool pool(1);
    absl::Notification begun, go;
    pool.Post({WorkClass::kRead, RequesterId(1), 0}, [&] {
      begun.Notify();
      go.WaitForNotification();
    });
    begun.WaitForNotification();
    for (int layer : {3, 1, 2, 0}) {
      pool.Post({WorkClass::kRead, RequesterId(1), layer},
                [&ran, layer] { ran.push_back(layer); });
    }
    pool.Post({WorkClass::kRead, RequesterId(2), 0},
              [&ran] { ran.push_back(100); });
    go.Notify();
  }
  EXPECT_EQ(ran, (std::vector<int>{0, 100, 1, 2, 3}));
}

TEST(WorkPoolTest, RunsQueuedTasksBeforeItIsDestroyed) {
  std::atomic<int> ran = 0;
  {
    WorkPool pool(3);
    for (int i = 0; i < 1000; ++i) pool.Post(kAnyOrder, [&ran] { ++ran; });
  }
  EXPECT_EQ(ran, 1000);
}

TEST(WorkPoolTest, ATaskMayPostAnother) {
  absl::Notification second;
  WorkPool pool(1);
  pool.Post(kAnyOrder,
            [&] { pool.Post(kAnyOrder, [&second] { second.Notify(); }); });
  second.WaitForNotification();
}

TEST(WorkPoolTest, ADrainWaitsForTasksThatTasksPost) {
  std::atomic<int> left = 100;
  WorkPool pool(2);
  std::function<void()> task = [&] {
    if (--left > 0) pool.Post(kAnyOrder, task);
  };
  pool.Post(kAnyOrder, task);
  pool.Drain();
  EXPECT_EQ(left, 0);
}

TEST(WorkPoolTest, EachTaskCountsItsWait) {
  Meters meters;
  WorkPool pool(1, &meters);
  for (int i = 0; i < 3; ++i) pool.Post(kAnyOrder, [] {});
  pool.Drain();
  EXPECT_EQ(meters.Read().histogram("pool_wait_us").count(), 3u);
}

TEST(WorkPoolTest, RequestersAreNumberedApart) {
  WorkPool pool(1);
  EXPECT_NE(pool.NextRequester(), pool.NextRequester());
}

}  // namespace
}  // namespace kdn::transfer
