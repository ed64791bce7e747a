#include "bench/blend_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace kdn::bench {
namespace {

// A sample of contexts of one item each.
BlendSample Kl(const std::vector<double>& kl) {
  BlendSample sample;
  for (const double x : kl) {
    const BlendScore full = {.flops = 4};
    const BlendScore score = {.kl = x, .flops = 1};
    sample.Add({&score, 1}, {&full, 1});
  }
  return sample;
}

TEST(BlendStatisticsTest, MeanAndInterval) {
  const Estimate estimate = MeanOf({1, 2, 3, 4});
  EXPECT_DOUBLE_EQ(estimate.mean, 2.5);
  EXPECT_NEAR(estimate.half.value(), 1.96 * std::sqrt(5.0 / 3 / 4), 1e-12);
}

TEST(BlendStatisticsTest, OneContextHasNoInterval) {
  EXPECT_FALSE(MeanOf({7}).half.has_value());
  EXPECT_FALSE(RatioOf({1}, {2}).half.has_value());
}

TEST(BlendStatisticsTest, ARatioThatAllContextsHaveIsCertain) {
  // Half of the divergence is gone in both contexts.
  const Estimate half = Kl({0.05, 0.45}).KlRecovered(Kl({0.1, 0.9}));
  EXPECT_DOUBLE_EQ(half.mean, 0.5);
  EXPECT_NEAR(half.half.value(), 0, 1e-12);
  // All of it is gone in one context, and nothing in the other.
  const Estimate mixed = Kl({0.0, 0.9}).KlRecovered(Kl({0.1, 0.9}));
  EXPECT_DOUBLE_EQ(mixed.mean, 0.1);
  EXPECT_GT(mixed.half.value(), 0.1);
}

TEST(BlendStatisticsTest, AccuracyIsRecoveredOverTheGap) {
  const BlendScore right = {.right = true, .flops = 1};
  const BlendScore wrong = {.right = false, .flops = 1};
  BlendSample reuse, blend, full;
  const std::vector<BlendScore> all = {right, right};
  for (int context = 0; context < 3; ++context) {
    full.Add(all, all);
    reuse.Add({wrong, wrong}, all);
    blend.Add({right, wrong}, all);
  }
  EXPECT_DOUBLE_EQ(full.right().mean, 1);
  EXPECT_DOUBLE_EQ(blend.RightRecovered(reuse, full).mean, 0.5);
  EXPECT_NEAR(blend.RightRecovered(reuse, full).half.value(), 0, 1e-12);
}

TEST(BlendStatisticsTest, FlopsAreOverThoseOfAFullPrefill) {
  EXPECT_DOUBLE_EQ(Kl({0.1, 0.2}).flops().mean, 0.25);
}

TEST(BlendStatisticsTest, ADivergenceThatIsNoNumberIsNotExact) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(Kl({0.1, 0.3, 0.2}).most_kl(), 0.3);
  EXPECT_TRUE(std::isnan(Kl({0.1, nan, 0.2}).most_kl()));
}

}  // namespace
}  // namespace kdn::bench
