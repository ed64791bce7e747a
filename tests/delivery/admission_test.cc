#include "delivery/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace kdn::delivery {
namespace {

using Pass = Admission::Pass;

TEST(AdmissionTest, LetsInWhatFitsAndTheRestInOrder) {
  Admission room(100);
  std::vector<int> order;
  std::vector<Pass> passes(4);
  const std::vector<uint64_t> bytes = {60, 60, 10, 40};
  for (int i = 0; i < 4; ++i) {
    room.Request(bytes[i], [&, i](Pass pass) {
      order.push_back(i);
      passes[i] = std::move(pass);
    });
  }
  EXPECT_EQ(order, std::vector<int>{0})
      << "a small one does not pass a large one that waits";
  passes[0] = nullptr;
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(room.used(), 70u);
  passes[2] = nullptr;
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
  passes.clear();
  EXPECT_EQ(room.used(), 0u);
}

TEST(AdmissionTest, MoreThanAllCountsAsAll) {
  Admission room(100);
  Pass held;
  room.Request(1000, [&](Pass pass) { held = std::move(pass); });
  ASSERT_NE(held, nullptr);
  EXPECT_EQ(room.used(), 100u);
}

TEST(AdmissionTest, ManyThatDropTheirPassAtOnceDoNotRecurse) {
  Admission room(1);
  Pass held;
  room.Request(1, [&](Pass pass) { held = std::move(pass); });
  int admitted = 0;
  for (int i = 0; i < 200000; ++i) {
    room.Request(1, [&](const Pass&) { ++admitted; });
  }
  held = nullptr;
  EXPECT_EQ(admitted, 200000);
  EXPECT_EQ(room.used(), 0u);
}

TEST(AdmissionTest, APassMayOutliveIt) {
  Pass held;
  {
    Admission room(10);
    room.Request(10, [&](Pass pass) { held = std::move(pass); });
    room.Request(10, [](const Pass&) { FAIL() << "there was never room"; });
  }
  held = nullptr;
}

TEST(AdmissionTest, ThreadsNeverHoldMoreThanTheLimit) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 2000;
  constexpr uint64_t kLimit = 50;
  Admission room(kLimit);
  std::atomic<uint64_t> held{0};
  std::atomic<int> admitted{0};
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < kThreads; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      std::vector<Pass> mine;
      for (int i = 0; i < kRequests; ++i) {
        const uint64_t bytes = random() % kLimit + 1;
        room.Request(bytes, [&, bytes](const Pass&) {
          EXPECT_LE(held.fetch_add(bytes) + bytes, kLimit);
          held -= bytes;
          ++admitted;
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(admitted, kThreads * kRequests);
  EXPECT_EQ(room.used(), 0u);
}

}  // namespace
}  // namespace kdn::delivery
