#include "delivery/link_rate.h"

#include <gtest/gtest.h>

#include <random>

namespace kdn::delivery {
namespace {

constexpr double kMB = 1e6;
const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

// A transfer of 10 MB at `rate` bytes/s that ends at `now`.
void Transfer(LinkRate& link, double rate, absl::Time now) {
  link.OnTransfer(10'000'000, absl::Seconds(10 * kMB / rate), now);
}

TEST(LinkRateTest, IsUnknownUntilAFirstTransfer) {
  LinkRate link;
  EXPECT_EQ(link.BytesPerSecond(kStart), std::nullopt);
  Transfer(link, 100 * kMB, kStart);
  EXPECT_NEAR(*link.BytesPerSecond(kStart), 100 * kMB, 1);
}

TEST(LinkRateTest, ATransferThatIsMostlyLatencyDoesNotCount) {
  LinkRate link;
  link.OnTransfer(10'000, absl::Milliseconds(5), kStart);
  EXPECT_EQ(link.BytesPerSecond(kStart), std::nullopt);
  Transfer(link, 100 * kMB, kStart);
  for (int i = 0; i < 10; ++i) {
    link.OnTransfer(1, absl::Milliseconds(60), kStart);
  }
  EXPECT_NEAR(*link.BytesPerSecond(kStart), 100 * kMB, 1);
}

TEST(LinkRateTest, AnImpossibleTransferDoesNotCount) {
  LinkRate link;
  link.OnTransfer(1 << 20, absl::ZeroDuration(), kStart);
  link.OnTransfer(1 << 20, -absl::Seconds(1), kStart);
  link.OnTransfer(1 << 20, absl::InfiniteDuration(), kStart);
  EXPECT_EQ(link.BytesPerSecond(kStart), std::nullopt);
}

TEST(LinkRateTest, AStalledTransferCounts) {
  LinkRate link;
  Transfer(link, 100 * kMB, kStart);
  link.OnTransfer(0, absl::Seconds(5), kStart);
  EXPECT_LT(*link.BytesPerSecond(kStart), 2 * kMB);
}

TEST(LinkRateTest, FollowsADropAtOnceAndARiseSlowly) {
  LinkRate link;
  for (int i = 0; i < 20; ++i) Transfer(link, 1000 * kMB, kStart);
  Transfer(link, 100 * kMB, kStart);
  EXPECT_NEAR(*link.BytesPerSecond(kStart), 100 * kMB, 1);
  // One fast transfer does not undo the drop: the mean of the last five is 50
  // MB in 0.14 s.
  Transfer(link, 1000 * kMB, kStart);
  EXPECT_NEAR(*link.BytesPerSecond(kStart), 50 / 0.14 * kMB, 1);
  for (int i = 0; i < 4; ++i) Transfer(link, 100 * kMB, kStart);
  for (int i = 0; i < 5; ++i) Transfer(link, 1000 * kMB, kStart);
  EXPECT_LT(*link.BytesPerSecond(kStart), 900 * kMB);
  for (int i = 0; i < 20; ++i) Transfer(link, 1000 * kMB, kStart);
  EXPECT_GT(*link.BytesPerSecond(kStart), 990 * kMB);
}

TEST(LinkRateTest, ARecoveredLinkIsFoundAgain) {
  LinkRate link;
  Transfer(link, 1000 * kMB, kStart);
  for (int i = 0; i < 8; ++i) Transfer(link, 100 * kMB, kStart);
  EXPECT_LE(*link.BytesPerSecond(kStart + LinkRate::kFresh), 160 * kMB);
  double before = 0;
  for (int s = 0; s <= 600; ++s) {
    const double rate = *link.BytesPerSecond(kStart + absl::Seconds(s));
    EXPECT_GE(rate, before) << s;
    EXPECT_LE(rate, 1000 * kMB) << "more than it ever gave";
    before = rate;
  }
  EXPECT_GT(*link.BytesPerSecond(kStart + absl::Seconds(22)), 400 * kMB);
  EXPECT_EQ(
      link.BytesPerSecond(kStart + LinkRate::kForgotten + absl::Nanoseconds(1)),
      std::nullopt);
}

TEST(LinkRateTest, AnIdleSteadyLinkIsNotOverrated) {
  LinkRate link;
  for (int i = 0; i < 20; ++i) Transfer(link, 500 * kMB, kStart);
  EXPECT_NEAR(*link.BytesPerSecond(kStart + absl::Minutes(5)), 500 * kMB, 1);
}

TEST(LinkRateTest, ALinkThatStaysSlowIsNotOverrated) {
  LinkRate link;
  Transfer(link, 1000 * kMB, kStart);
  for (int i = 0; i < 60; ++i) Transfer(link, 100 * kMB, kStart);
  EXPECT_LT(*link.BytesPerSecond(kStart + absl::Minutes(5)), 110 * kMB);
}

TEST(LinkRateTest, ALinkThatGaveNothingIsTriedAgain) {
  LinkRate link;
  link.OnTransfer(0, absl::Seconds(10), kStart);
  EXPECT_EQ(*link.BytesPerSecond(kStart), 0);
  EXPECT_GE(*link.BytesPerSecond(kStart + absl::Minutes(1)), LinkRate::kLeast);
  EXPECT_EQ(link.BytesPerSecond(kStart + absl::Minutes(11)), std::nullopt);
}

TEST(LinkRateTest, AClockThatIsSetBackChangesNothing) {
  LinkRate link;
  Transfer(link, 100 * kMB, kStart);
  Transfer(link, 100 * kMB, kStart - absl::Hours(1));
  EXPECT_NEAR(*link.BytesPerSecond(kStart), 100 * kMB, 1);
  EXPECT_NEAR(*link.BytesPerSecond(kStart - absl::Hours(1)), 100 * kMB, 1);
}

TEST(LinkRateTest, StaysWithinTheMeasuredRates) {
  std::mt19937 rng(4);
  std::uniform_real_distribution<double> rate(1 * kMB, 1000 * kMB);
  std::uniform_int_distribution<uint64_t> bytes(LinkRate::kSampleBytes,
                                                64u << 20);
  for (int round = 0; round < 50; ++round) {
    LinkRate link;
    double least = 1e18;
    double most = 0;
    absl::Time now = kStart;
    for (int i = 0; i < 40; ++i) {
      const double r = rate(rng);
      const uint64_t b = bytes(rng);
      least = std::min(least, r);
      most = std::max(most, r);
      now += absl::Seconds(7);
      link.OnTransfer(b, absl::Seconds(static_cast<double>(b) / r), now);
      const double estimate = *link.BytesPerSecond(now + absl::Seconds(6));
      EXPECT_GE(estimate, least * 0.999);
      EXPECT_LE(estimate, most * 1.001);
    }
  }
}

}  // namespace
}  // namespace kdn::delivery
