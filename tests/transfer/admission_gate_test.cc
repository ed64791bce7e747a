#include "transfer/admission_gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace kdn::transfer {
namespace {

using Pass = AdmissionGate::Pass;
constexpr absl::Time kNever = absl::InfiniteFuture();

AdmissionGate::Answer Into(Pass* held) {
  return [held](absl::StatusOr<Pass> pass) { *held = *std::move(pass); };
}
AdmissionGate::Answer Into(absl::Status* why) {
  return [why](const absl::StatusOr<Pass>& pass) { *why = pass.status(); };
}

AdmissionGate::Ask For(uint64_t amount, absl::Time deadline = kNever) {
  return {
      .amount = amount, .work_class = WorkClass::kRead, .deadline = deadline};
}
AdmissionGate Gate(uint64_t budget, size_t waiting_max = 1024) {
  return AdmissionGate({.budget = budget, .waiting_max = waiting_max});
}

TEST(AdmissionGateTest, GrantsRequestsInOrderAsTheyFit) {
  AdmissionGate room = Gate(100);
  std::vector<int> order;
  std::vector<Pass> passes(4);
  const std::vector<uint64_t> bytes = {60, 60, 10, 40};
  for (int i = 0; i < 4; ++i) {
    room.Request(For(bytes[i]), [&, i](absl::StatusOr<Pass> pass) {
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

TEST(AdmissionGateTest, TakingAtOnceNeverWaits) {
  AdmissionGate room = Gate(10);
  Pass six = room.TryTake(6, WorkClass::kRead);
  ASSERT_NE(six, nullptr);
  EXPECT_EQ(room.TryTake(5, WorkClass::kRead), nullptr);
  const Pass four = room.TryTake(4, WorkClass::kRead);
  ASSERT_NE(four, nullptr);
  EXPECT_EQ(room.used(), 10u);
  EXPECT_EQ(room.TryTake(UINT64_MAX, WorkClass::kRead), nullptr);
  Pass copy = six;
  six = nullptr;
  EXPECT_EQ(room.used(), 10u) << "the copy still holds the amount";
  copy = nullptr;
  EXPECT_EQ(room.used(), 4u);
}

TEST(AdmissionGateTest, AWithdrawnRequestIsNotAnswered) {
  AdmissionGate room = Gate(10);
  const Pass held = room.TryTake(8, WorkClass::kRead);
  const AdmissionId large = room.Request(
      For(5),
      [](const absl::StatusOr<Pass>&) { FAIL() << "it was withdrawn"; });
  Pass small;
  room.Request(For(2), Into(&small));
  EXPECT_EQ(small, nullptr);
  EXPECT_EQ(room.waiting(), 2u);
  room.Withdraw(large);
  EXPECT_NE(small, nullptr);
  EXPECT_EQ(room.waiting(), 0u);
}

TEST(AdmissionGateTest, ARefusedRequestIsAnsweredAndLeavesTheLine) {
  AdmissionGate room = Gate(10);
  Pass held = room.TryTake(8, WorkClass::kRead);
  absl::Status why;
  const AdmissionId large = room.Request(For(5), Into(&why));
  Pass small;
  const AdmissionId fits = room.Request(For(2), Into(&small));
  room.Refuse(large, absl::CancelledError("the engine left"));
  EXPECT_TRUE(absl::IsCancelled(why)) << why;
  EXPECT_NE(small, nullptr);
  room.Refuse(fits, absl::CancelledError("too late"));
  EXPECT_NE(small, nullptr) << "a granted request is not refused";
  EXPECT_EQ(room.used(), 10u);
}

TEST(AdmissionGateTest, AnswersThatDropTheirPassAtOnceDoNotRecurse) {
  constexpr int kRequests = 200000;
  AdmissionGate room = Gate(1, kRequests);
  Pass held;
  room.Request(For(1), Into(&held));
  int admitted = 0;
  for (int i = 0; i < kRequests; ++i) {
    room.Request(For(1), [&](const absl::StatusOr<Pass>&) { ++admitted; });
  }
  held = nullptr;
  EXPECT_EQ(admitted, kRequests);
  EXPECT_EQ(room.used(), 0u);
}

TEST(AdmissionGateTest, ARequestBeyondTheLimitIsRefused) {
  AdmissionGate room = Gate(10, /*waiting_max=*/2);
  Pass held;
  room.Request(For(10), Into(&held));
  std::vector<Pass> waiting(2);
  for (Pass& pass : waiting) room.Request(For(5), Into(&pass));
  absl::Status refused;
  room.Request(For(5), Into(&refused));
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  held = nullptr;
  EXPECT_TRUE(waiting[0] != nullptr && waiting[1] != nullptr);
  Pass next;
  room.Request(For(5), Into(&next));
  waiting.clear();
  EXPECT_NE(next, nullptr) << "there is room to wait again";
}

TEST(AdmissionGateTest, AnExpiredRequestIsAnsweredAndTheNextOnesMoveUp) {
  const absl::Time start = absl::UnixEpoch();
  AdmissionGate room = Gate(100);
  Pass held;
  room.Request(For(60, start), Into(&held));
  absl::Status large;
  absl::Status last;
  Pass small;
  room.Request(For(60, start + absl::Seconds(2)), Into(&large));
  room.Request(For(40, start + absl::Seconds(9)), Into(&small));
  room.Request(For(60, start + absl::Seconds(1)), Into(&last));
  room.Expire(start + absl::Seconds(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(last)) << last;
  EXPECT_TRUE(large.ok()) << "not late yet: " << large;
  EXPECT_EQ(small, nullptr);
  room.Expire(start + absl::Seconds(2));
  EXPECT_TRUE(absl::IsDeadlineExceeded(large)) << large;
  EXPECT_NE(small, nullptr) << "it fits, and no request is before it";
  EXPECT_EQ(room.used(), 100u) << "a grant has no deadline";
}

TEST(AdmissionGateTest, APassMayOutliveTheGate) {
  Pass held;
  {
    AdmissionGate room = Gate(10);
    room.Request(For(10), Into(&held));
    room.Request(For(10), [](const absl::StatusOr<Pass>&) {
      FAIL() << "there was never room";
    });
  }
  held = nullptr;
}

TEST(AdmissionGateTest, ThreadsNeverHoldMoreThanTheLimit) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 2000;
  constexpr uint64_t kLimit = 50;
  AdmissionGate room = Gate(kLimit, kThreads * kRequests);
  std::atomic<uint64_t> held{0};
  std::atomic<int> admitted{0};
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < kThreads; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      std::vector<Pass> mine;
      for (int i = 0; i < kRequests; ++i) {
        const uint64_t bytes = random() % kLimit + 1;
        room.Request(For(bytes), [&, bytes](const absl::StatusOr<Pass>&) {
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
