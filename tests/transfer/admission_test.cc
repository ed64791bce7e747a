#include "transfer/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace kdn::transfer {
namespace {

using Pass = Admission::Pass;
constexpr absl::Time kNever = absl::InfiniteFuture();

Admission::Answer Into(Pass* held) {
  return [held](absl::StatusOr<Pass> pass) { *held = *std::move(pass); };
}
Admission::Answer Into(absl::Status* why) {
  return [why](const absl::StatusOr<Pass>& pass) { *why = pass.status(); };
}

TEST(AdmissionTest, LetsInWhatFitsAndTheRestInOrder) {
  Admission room(100);
  std::vector<int> order;
  std::vector<Pass> passes(4);
  const std::vector<uint64_t> bytes = {60, 60, 10, 40};
  for (int i = 0; i < 4; ++i) {
    room.Request(bytes[i], kNever, [&, i](absl::StatusOr<Pass> pass) {
      order.push_back(i);
      passes[i] = *std::move(pass);
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
  room.Request(1000, kNever, Into(&held));
  ASSERT_NE(held, nullptr);
  EXPECT_EQ(room.used(), 100u);
}

TEST(AdmissionTest, ManyThatDropTheirPassAtOnceDoNotRecurse) {
  constexpr int kRequests = 200000;
  Admission room(1, kRequests);
  Pass held;
  room.Request(1, kNever, Into(&held));
  int admitted = 0;
  for (int i = 0; i < kRequests; ++i) {
    room.Request(1, kNever, [&](const absl::StatusOr<Pass>&) { ++admitted; });
  }
  held = nullptr;
  EXPECT_EQ(admitted, kRequests);
  EXPECT_EQ(room.used(), 0u);
}

TEST(AdmissionTest, NoMoreWaitThanItIsToldAndTheOthersAreRefused) {
  Admission room(10, /*waiters_max=*/2);
  Pass held;
  room.Request(10, kNever, Into(&held));
  std::vector<Pass> waiting(2);
  for (Pass& pass : waiting) room.Request(5, kNever, Into(&pass));
  absl::Status refused;
  room.Request(5, kNever, Into(&refused));
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  held = nullptr;
  EXPECT_TRUE(waiting[0] != nullptr && waiting[1] != nullptr);
  Pass next;
  room.Request(5, kNever, Into(&next));
  waiting.clear();
  EXPECT_NE(next, nullptr) << "there is room to wait again";
}

TEST(AdmissionTest, WhoWaitsTooLongIsToldAndThoseBehindMoveUp) {
  const absl::Time start = absl::UnixEpoch();
  Admission room(100);
  Pass held;
  room.Request(60, start, Into(&held));
  absl::Status large;
  absl::Status last;
  Pass small;
  room.Request(60, start + absl::Seconds(2), Into(&large));
  room.Request(40, start + absl::Seconds(9), Into(&small));
  room.Request(60, start + absl::Seconds(1), Into(&last));
  room.Expire(start + absl::Seconds(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(last)) << last;
  EXPECT_TRUE(large.ok()) << "not late yet: " << large;
  EXPECT_EQ(small, nullptr);
  room.Expire(start + absl::Seconds(2));
  EXPECT_TRUE(absl::IsDeadlineExceeded(large)) << large;
  EXPECT_NE(small, nullptr) << "there is room for it, and nobody in front";
  EXPECT_EQ(room.used(), 100u) << "who was admitted in time keeps its share";
}

TEST(AdmissionTest, APassMayOutliveIt) {
  Pass held;
  {
    Admission room(10);
    room.Request(10, kNever, Into(&held));
    room.Request(10, kNever, [](const absl::StatusOr<Pass>&) {
      FAIL() << "there was never room";
    });
  }
  held = nullptr;
}

TEST(AdmissionTest, ThreadsNeverHoldMoreThanTheLimit) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 2000;
  constexpr uint64_t kLimit = 50;
  Admission room(kLimit, kThreads * kRequests);
  std::atomic<uint64_t> held{0};
  std::atomic<int> admitted{0};
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < kThreads; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      std::vector<Pass> mine;
      for (int i = 0; i < kRequests; ++i) {
        const uint64_t bytes = random() % kLimit + 1;
        room.Request(bytes, kNever, [&, bytes](const absl::StatusOr<Pass>&) {
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
}  // namespace kdn::transfer
