#include "delivery/rate_report.h"

#include <gtest/gtest.h>

namespace kdn::delivery {
namespace {

LevelPlan PlanOf(int loaded, int recomputed) {
  LevelPlan plan;
  plan.chunks.resize(loaded + recomputed);
  plan.chunks_loaded = loaded;
  plan.tokens_loaded = 256 * loaded;
  plan.tokens_recomputed = 256 * recomputed;
  plan.bytes = 1'000'000 * static_cast<uint64_t>(loaded);
  return plan;
}

const DeliveryTarget kTarget{.bytes_per_second = 1e7,
                             .latency = absl::Milliseconds(10),
                             .prefill_tokens_per_second = 256,
                             .now = absl::UnixEpoch(),
                             .deadline = absl::UnixEpoch() + absl::Seconds(9)};

TEST(RateReportTest, PredictsLoadingAndThenPrefill) {
  const Prediction predicted = Predict(PlanOf(3, 2), kTarget);
  EXPECT_EQ(predicted.bytes, 3'000'000u);
  EXPECT_EQ(predicted.chunks_loaded, 3);
  EXPECT_EQ(predicted.chunks_recomputed, 2);
  EXPECT_EQ(*predicted.load, absl::Milliseconds(310));
  EXPECT_EQ(predicted.prefill, absl::Seconds(2));
  EXPECT_EQ(predicted.prefill_all, absl::Seconds(5));
  EXPECT_EQ(predicted.total(), absl::Milliseconds(2310));
}

TEST(RateReportTest, UnknownRatesPredictNothing) {
  DeliveryTarget target = kTarget;
  target.bytes_per_second = std::nullopt;
  target.prefill_tokens_per_second = 0;
  EXPECT_EQ(Predict(PlanOf(3, 2), target).load, std::nullopt);
  EXPECT_EQ(Predict(PlanOf(3, 2), target).prefill_all, absl::ZeroDuration());
  EXPECT_EQ(Predict(PlanOf(0, 2), target).load, absl::ZeroDuration());
}

TEST(RateReportTest, AStalledLinkTakesForever) {
  DeliveryTarget target = kTarget;
  target.bytes_per_second = 0;
  EXPECT_EQ(*Predict(PlanOf(1, 0), target).load, absl::InfiniteDuration());
}

TEST(RateReportTest, DecodingCountsWhenItIsSlower) {
  const LevelPlan plan = PlanOf(3, 0);  // 300 ms of the link
  EXPECT_EQ(*Predict(plan, kTarget, absl::Milliseconds(200)).load,
            absl::Milliseconds(310));
  EXPECT_EQ(*Predict(plan, kTarget, absl::Milliseconds(700)).load,
            absl::Milliseconds(710));
}

TEST(RateReportTest, LateIsBeyondTheMargin) {
  DeliveryReport report{Predict(PlanOf(3, 2), kTarget), 3'000'000,
                        absl::Milliseconds(380)};
  EXPECT_FALSE(report.late());
  report.load = absl::Milliseconds(390);
  EXPECT_TRUE(report.late());
  EXPECT_FALSE(report.slower_than_recompute());
  report.load = absl::Milliseconds(3001);
  EXPECT_TRUE(report.slower_than_recompute());
}

TEST(RateReportTest, CountersAddUp) {
  MetricValues counters;
  DeliveryReport report{Predict(PlanOf(3, 2), kTarget), 2'900'000,
                        absl::Milliseconds(400)};
  Count(report, counters);
  report.load = absl::Milliseconds(300);
  Count(report, counters);
  EXPECT_EQ(counters["rate.plans"], 2u);
  EXPECT_EQ(counters["rate.plans_blind"], 0u);
  EXPECT_EQ(counters["rate.chunks_loaded"], 6u);
  EXPECT_EQ(counters["rate.chunks_recomputed"], 4u);
  EXPECT_EQ(counters["rate.bytes_predicted"], 6'000'000u);
  EXPECT_EQ(counters["rate.bytes_actual"], 5'800'000u);
  EXPECT_EQ(counters["rate.load_us_predicted"], 620'000u);
  EXPECT_EQ(counters["rate.load_us_actual"], 700'000u);
  EXPECT_EQ(counters["rate.late"], 1u);
  EXPECT_EQ(counters["rate.slower_than_recompute"], 0u);
}

TEST(RateReportTest, ADeliveryWithoutAPredictionIsNotCompared) {
  DeliveryTarget target = kTarget;
  target.bytes_per_second = std::nullopt;
  MetricValues counters;
  Count({Predict(PlanOf(3, 2), target), 3'000'000, absl::Seconds(4)}, counters);
  EXPECT_EQ(counters["rate.plans_blind"], 1u);
  EXPECT_EQ(counters["rate.bytes_actual"], 0u);
  EXPECT_EQ(counters["rate.load_us_actual"], 0u);
  EXPECT_EQ(counters["rate.late"], 0u);
  EXPECT_EQ(counters["rate.slower_than_recompute"], 1u);
}

}  // namespace
}  // namespace kdn::delivery
