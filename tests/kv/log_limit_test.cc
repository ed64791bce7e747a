#include "kv/log_limit.h"

#include <gtest/gtest.h>

namespace kdn {
namespace {

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

TEST(LogLimitTest, WritesOneLinePerSiteAndInterval) {
  LogLimit limit(absl::Seconds(10));
  EXPECT_EQ(limit.Admit("a", kStart), 0u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(limit.Admit("a", kStart + absl::Seconds(i)), std::nullopt);
  }
  EXPECT_EQ(limit.Admit("a", kStart + absl::Seconds(10)), 5u);
  EXPECT_EQ(limit.Admit("a", kStart + absl::Seconds(11)), std::nullopt);
  EXPECT_EQ(limit.Admit("a", kStart + absl::Seconds(20)), 1u);
}

TEST(LogLimitTest, SitesDoNotAffectEachOther) {
  LogLimit limit(absl::Seconds(10));
  EXPECT_EQ(limit.Admit("a", kStart), 0u);
  EXPECT_EQ(limit.Admit("b", kStart), 0u);
  EXPECT_EQ(limit.Admit("b", kStart), std::nullopt);
}

TEST(LogLimitTest, AQuietSiteWritesAtOnce) {
  LogLimit limit(absl::Seconds(10));
  EXPECT_EQ(limit.Admit("a", kStart), 0u);
  EXPECT_EQ(limit.Admit("a", kStart + absl::Hours(1)), 0u);
}

}  // namespace
}  // namespace kdn
