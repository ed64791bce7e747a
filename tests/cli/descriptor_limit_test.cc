#include "cli/descriptor_limit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

namespace kdn::cli {
namespace {

using testing::HasSubstr;

constexpr uint64_t kGiB = 1ull << 30;

TEST(DescriptorLimitTest, TheParametersOfANodeStayBelowTheLimit) {
  for (const uint64_t limit : {512u, 1024u, 4096u, 65536u, 1048576u}) {
    for (const uint64_t disk : {uint64_t{0}, kGiB, 100 * kGiB}) {
      const auto plan = PlanDescriptors(limit, disk, /*peers=*/2);
      ASSERT_TRUE(plan.ok()) << plan.status();
      // The gateway has 64 connections without a session and 64 visitors. A
      // connection to the control port takes two descriptors, and nine bulk
      // connections go to each peer.
      EXPECT_LE(plan->sessions + plan->regions + plan->bulk_connections +
                    2 * plan->peers + 64 + 64 + 160 + 2 * (2 + 9),
                static_cast<int64_t>(limit));
      EXPECT_GE(plan->sessions, 32);
      EXPECT_GE(plan->regions, 32);
      EXPECT_GE(plan->bulk_connections, 32);
      EXPECT_GE(plan->peers, 32);
    }
  }
}

TEST(DescriptorLimitTest, ADiskWithMoreSegmentsThanFilesIsWarnedOf) {
  EXPECT_EQ(PlanDescriptors(4096, 256 * kGiB, 0)->warning, "");
  const auto plan = PlanDescriptors(1024, 256 * kGiB, 0);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->warning, HasSubstr("needs 1026 files"));
  EXPECT_THAT(plan->warning, HasSubstr("LimitNOFILE"));
}

TEST(DescriptorLimitTest, ALargeClusterNeedsAHigherLimit) {
  EXPECT_TRUE(PlanDescriptors(1024, 0, 40).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(PlanDescriptors(1024, 0, 60).status()));
}

TEST(DescriptorLimitTest, ALimitThatIsTooLowForANodeIsRefused) {
  const auto plan = PlanDescriptors(256, 0, 0);
  EXPECT_TRUE(absl::IsResourceExhausted(plan.status()));
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("ulimit -Hn"));
}

TEST(DescriptorLimitTest, TheSoftLimitIsRaisedToTheHardLimit) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = std::min<rlim_t>(before.rlim_max, 256);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(RaiseDescriptorLimit(), before.rlim_max);
  rlimit after{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, before.rlim_max);
  setrlimit(RLIMIT_NOFILE, &before);
}

}  // namespace
}  // namespace kdn::cli
