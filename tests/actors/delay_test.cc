#include "actors/delay.h"

#include <gtest/gtest.h>

namespace kdn::actors {
namespace {

using std::chrono::microseconds;
const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(DelayTest, IsRoundedUpAndNeverNegative) {
  EXPECT_EQ(DelayUntil(kNow + absl::Nanoseconds(1), kNow), microseconds(1));
  EXPECT_EQ(DelayUntil(kNow - absl::Seconds(1), kNow), microseconds(0));
  EXPECT_EQ(DelayUntil(absl::InfinitePast(), kNow), microseconds(0));
  EXPECT_EQ(TimeoutUntil(kNow, kNow), microseconds(1));
}

// CAF adds the delay to a clock that counts nanoseconds in 64 bits.
TEST(DelayTest, ADeadlineThatNeverComesDoesNotOverflow) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const auto most = std::chrono::duration_cast<microseconds>(
      std::chrono::nanoseconds::max() - now);
  for (const microseconds delay :
       {DelayUntil(absl::InfiniteFuture(), kNow),
        TimeoutUntil(absl::InfiniteFuture(), kNow)}) {
    EXPECT_GT(delay, std::chrono::hours(24));
    EXPECT_LT(delay, most);
  }
}

}  // namespace
}  // namespace kdn::actors
