#include "cli/restart_plan.h"

#include <gtest/gtest.h>

namespace kdn::cli {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

TEST(RestartPlanTest, AStartThatFailsIsTriedAgainAndAgain) {
  RestartPlan plan(2, kStart);
  absl::Time now = kStart + absl::Seconds(1);
  EXPECT_EQ(plan.NextStart(), absl::InfiniteFuture());
  absl::Duration pause = plan.OnEnd(1, now);
  EXPECT_EQ(pause, RestartPlan::kFirstPause);
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(plan.IsDue(1, now));
    EXPECT_EQ(plan.NextStart(), now + pause);
    now += pause;
    ASSERT_TRUE(plan.IsDue(1, now)) << "attempt " << i;
    EXPECT_FALSE(plan.IsDue(0, now));
    const absl::Duration next = plan.OnStartFailed(1, now);
    EXPECT_EQ(next, std::min(2 * pause, RestartPlan::kLongestPause));
    pause = next;
  }
  plan.OnStarted(1, now);
  EXPECT_FALSE(plan.IsDue(1, now + absl::Hours(1)));
  EXPECT_EQ(plan.NextStart(), absl::InfiniteFuture());
}

TEST(RestartPlanTest, ThePauseBeginsAnewForAProcessThatRanWell) {
  RestartPlan plan(1, kStart);
  absl::Time now = kStart;
  for (int i = 0; i < 3; ++i) {
    plan.OnEnd(0, now);
    plan.OnStarted(0, now);
  }
  EXPECT_GT(plan.OnEnd(0, now), RestartPlan::kFirstPause);
  plan.OnStarted(0, now);
  now += RestartPlan::kHealthy + absl::Seconds(1);
  EXPECT_EQ(plan.OnEnd(0, now), RestartPlan::kFirstPause);
}

}  // namespace
}  // namespace kdn::cli
