#include "delivery/report_session.h"

#include <gtest/gtest.h>

namespace kdn::delivery {
namespace {

const NodeId kA("a");
const NodeId kB("b");
const NodeId kC("c");
const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);
const absl::Time kDeadline = kNow + absl::Seconds(1);

bool AllLive(const NodeId&) { return true; }

MetricValues SevenStores() {
  MetricValues values;
  values["stores"] = 7;
  return values;
}

class ReportSessionTest : public testing::Test {
 protected:
  ReportSessionTest() { Take(kNow); }
  void Take(absl::Time now) {
    for (const ReportAction& action : session_.TakeActions(now)) {
      if (const auto* ask = std::get_if<AskReport>(&action)) {
        asks_.push_back(*ask);
      } else if (const auto* answer = std::get_if<AnswerReport>(&action)) {
        EXPECT_FALSE(answered_) << "answered once";
        answered_ = true;
        statuses_ = answer->statuses;
      }
    }
    session_.CheckInvariants();
  }

  ReportSession session_{
      {{kA, "1.1.1.1:1", true}, {kB, "1.1.1.1:2", false}, {kC, "", true}},
      kDeadline};
  std::vector<AskReport> asks_;
  bool answered_ = false;
  std::vector<NodeStatus> statuses_;
};

TEST_F(ReportSessionTest, EveryLiveNodeIsAskedAndAllAreReported) {
  ASSERT_EQ(asks_.size(), 2u);
  EXPECT_EQ(asks_[1].node, kC);
  session_.OnAnswer(asks_[1].number, SevenStores());
  session_.OnAnswer(asks_[0].number, SevenStores());
  Take(kNow);
  ASSERT_TRUE(answered_);
  ASSERT_EQ(statuses_.size(), 3u);
  EXPECT_TRUE(statuses_[0].alive);
  EXPECT_EQ(statuses_[0].metrics["stores"], 7u);
  EXPECT_EQ(statuses_[0].gateway_address, "1.1.1.1:1");
  EXPECT_FALSE(statuses_[1].alive);
  EXPECT_EQ(statuses_[1].id, kB);
  EXPECT_TRUE(statuses_[2].alive);
}

TEST_F(ReportSessionTest, ANodeThatDiesIsNotWaitedFor) {
  session_.OnAnswer(asks_[0].number, SevenStores());
  session_.OnTime(kNow, [](const NodeId& id) { return id != kC; });
  Take(kNow);
  ASSERT_TRUE(answered_);
  EXPECT_FALSE(statuses_[2].alive);
}

TEST_F(ReportSessionTest, ASilentNodeIsNotAliveAtTheDeadline) {
  session_.OnNoAnswer(asks_[0].number);
  session_.OnTime(kNow, AllLive);
  Take(kNow);
  EXPECT_FALSE(answered_);
  session_.OnTime(kDeadline, AllLive);
  Take(kDeadline);
  ASSERT_TRUE(answered_);
  EXPECT_FALSE(statuses_[0].alive);
  EXPECT_FALSE(statuses_[2].alive);
}

}  // namespace
}  // namespace kdn::delivery
