#include "delivery/report_session.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/delivery/query_driver.h"

namespace kdn::delivery {
namespace {

MetricValues SevenStores() {
  MetricValues values;
  values["stores"] = 7;
  return values;
}

class ReportSessionTest : public testing::Test {
 protected:
  ReportSessionTest() { driven_.Take(); }

  QueryDriver<ReportSession, AskReport, AnswerReport> driven_{
      std::vector<ReportedNode>{
          {kA, "1.1.1.1:1", true}, {kB, "1.1.1.1:2", false}, {kC, "", true}},
      kDeadline};
  ReportSession& session_ = driven_.session;
  std::vector<AskReport>& asks_ = driven_.asks;
};

TEST_F(ReportSessionTest, EveryLiveNodeIsAskedAndAllAreReported) {
  ASSERT_EQ(asks_.size(), 2u);
  EXPECT_EQ(asks_[1].node, kC);
  session_.OnAnswer(asks_[1].number, SevenStores());
  session_.OnAnswer(asks_[0].number, SevenStores());
  driven_.Take(kNow);
  ASSERT_TRUE(driven_.answer.has_value());
  ASSERT_EQ(driven_.answer->statuses.size(), 3u);
  EXPECT_TRUE(driven_.answer->statuses[0].alive);
  EXPECT_EQ(driven_.answer->statuses[0].metrics["stores"], 7u);
  EXPECT_EQ(driven_.answer->statuses[0].gateway_address, "1.1.1.1:1");
  EXPECT_FALSE(driven_.answer->statuses[1].alive);
  EXPECT_EQ(driven_.answer->statuses[1].id, kB);
  EXPECT_TRUE(driven_.answer->statuses[2].alive);
}

TEST_F(ReportSessionTest, ANodeThatDiesIsNotWaitedFor) {
  session_.OnAnswer(asks_[0].number, SevenStores());
  session_.OnTime(kNow, [](const NodeId& id) { return id != kC; });
  driven_.Take(kNow);
  ASSERT_TRUE(driven_.answer.has_value());
  EXPECT_FALSE(driven_.answer->statuses[2].alive);
}

TEST_F(ReportSessionTest, ASilentNodeIsNotAliveAtTheDeadline) {
  session_.OnNoAnswer(asks_[0].number);
  session_.OnTime(kNow, AllLive);
  driven_.Take(kNow);
  EXPECT_FALSE(driven_.answer.has_value());
  session_.OnTime(kDeadline, AllLive);
  driven_.Take(kDeadline);
  ASSERT_TRUE(driven_.answer.has_value());
  EXPECT_FALSE(driven_.answer->statuses[0].alive);
  EXPECT_FALSE(driven_.answer->statuses[2].alive);
}

}  // namespace
}  // namespace kdn::delivery
