#include "rpc/bulk/push_room.h"

#include <gtest/gtest.h>
#include <kj/async.h>

#include <random>
#include <vector>

namespace kdn::rpc {
namespace {

using Pass = std::unique_ptr<PushRoom::Pass>;

class PushRoomTest : public ::testing::Test {
 protected:
  ~PushRoomTest() noexcept override = default;
  kj::Promise<Pass> Ask(uint64_t bytes, uint64_t peer) {
    return room_->Acquire(bytes, RequesterId(peer));
  }
  bool Granted(kj::Promise<Pass>& promise) { return promise.poll(wait_); }
  Pass Take(uint64_t bytes, uint64_t peer) {
    return Ask(bytes, peer).wait(wait_);
  }

  kj::EventLoop loop_;
  kj::WaitScope wait_{loop_};
  const std::shared_ptr<PushRoom> room_ = std::make_shared<PushRoom>(100);
};

TEST_F(PushRoomTest, APeerHasAtMostHalfAndHoldsUpNobodyElse) {
  Pass held = Take(1000, 1);
  EXPECT_EQ(room_->used(), 50u);
  auto more = Ask(10, 1);
  EXPECT_FALSE(Granted(more));
  Pass other = Take(50, 2);
  held = nullptr;
  EXPECT_TRUE(Granted(more));
}

TEST_F(PushRoomTest, APushGivesRoomBackAsItsBytesCome) {
  Pass held = Take(50, 1);
  auto more = Ask(20, 1);
  EXPECT_FALSE(Granted(more));
  held->Shrink(40);
  EXPECT_FALSE(Granted(more));
  held->Shrink(30);
  EXPECT_TRUE(Granted(more));
  held->Shrink(60);
  EXPECT_EQ(room_->used(), 50u);
}

TEST_F(PushRoomTest, SmallerPushesOvertakeALargeOneButNotForEver) {
  Pass first = Take(50, 1);
  Pass second = Take(10, 2);
  auto large = Ask(50, 3);
  EXPECT_FALSE(Granted(large));
  for (int i = 0; i < 5; ++i) Take(20, 4);
  auto small = Ask(20, 4);
  EXPECT_FALSE(Granted(small)) << "the large push is due";
  second = nullptr;
  EXPECT_TRUE(Granted(large));
  EXPECT_FALSE(Granted(small));
  first = nullptr;
  EXPECT_TRUE(Granted(small));
}

TEST_F(PushRoomTest, AWithdrawnRequestHoldsUpNobody) {
  Pass first = Take(50, 1);
  Pass second = Take(10, 2);
  auto large = Ask(50, 3);
  for (int i = 0; i < 5; ++i) Take(20, 4);
  auto small = Ask(20, 4);
  EXPECT_FALSE(Granted(small));
  large = nullptr;
  EXPECT_TRUE(Granted(small));
}

TEST_F(PushRoomTest, NoLimitIsEverPassedAndAllRoomComesBack) {
  std::mt19937 random(20261129);
  std::vector<kj::Promise<Pass>> asked;
  std::vector<Pass> held;
  for (int i = 0; i < 3000; ++i) {
    asked.push_back(Ask(1 + random() % 80, random() % 4));
    const auto any =
        asked.begin() + static_cast<int64_t>(random() % asked.size());
    if (Granted(*any)) {
      held.push_back(any->wait(wait_));
      asked.erase(any);
    } else if (random() % 4 == 0) {
      asked.erase(any);
    }
    ASSERT_LE(room_->used(), 100u);
    if (held.size() > 5) held.erase(held.begin());
  }
  asked.clear();
  held.clear();
  EXPECT_EQ(room_->used(), 0u);
}

}  // namespace
}  // namespace kdn::rpc
