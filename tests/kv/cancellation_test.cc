#include "kv/cancellation.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace kdn {
namespace {

TEST(CancellationTest, EachListenerRunsOnce) {
  Cancellation cancellation;
  int first = 0;
  int second = 0;
  cancellation.OnCancel([&] { ++first; });
  cancellation.OnCancel([&] { ++second; });
  EXPECT_FALSE(cancellation.cancelled());
  cancellation.Cancel();
  cancellation.Cancel();
  EXPECT_TRUE(cancellation.cancelled());
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 1);
}

TEST(CancellationTest, AListenerThatComesLateRunsAtOnce) {
  Cancellation cancellation;
  cancellation.Cancel();
  bool ran = false;
  cancellation.OnCancel([&] { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(CancellationTest, NoListenerIsLostWhileAnotherThreadCancels) {
  for (int round = 0; round < 100; ++round) {
    Cancellation cancellation;
    std::atomic<int> ran{0};
    std::thread canceller([&] { cancellation.Cancel(); });
    for (int i = 0; i < 20; ++i) cancellation.OnCancel([&] { ++ran; });
    canceller.join();
    EXPECT_EQ(ran, 20);
  }
}

}  // namespace
}  // namespace kdn
