#include "kv/metric_values.h"

#include <gtest/gtest.h>

#include <random>

namespace kdn {
namespace {

MetricValues RandomValues(uint64_t seed) {
  std::mt19937_64 random(seed);
  MetricValues values;
  for (size_t i = 0; i < kMetricCount; ++i) {
    const Metric metric = Metric::At(i);
    if (metric.info().type != MetricType::kHistogram) {
      values[metric] = random() % 1000;
      continue;
    }
    for (int n = 0; n < 20; ++n) {
      values.histogram(metric).Record(random() % 1'000'000);
    }
  }
  return values;
}

TEST(MetricValuesTest, BeginAtZero) {
  const MetricValues values;
  EXPECT_EQ(values["lookups"], 0u);
  EXPECT_EQ(values.histogram("lookup_us").count(), 0u);
  EXPECT_EQ(values.Samples().size(), kMetricCount);
}

TEST(MetricValuesTest, SamplesCarryEverything) {
  const MetricValues values = RandomValues(1);
  MetricValues back;
  for (const MetricSample& sample : values.Samples()) back.Add(sample);
  EXPECT_EQ(back, values);
}

TEST(MetricValuesTest, MergeAddsEachMetric) {
  const MetricValues one = RandomValues(2);
  const MetricValues other = RandomValues(3);
  MetricValues sum = one;
  sum.Merge(other);
  for (size_t i = 0; i < kMetricCount; ++i) {
    const Metric metric = Metric::At(i);
    if (metric.info().type == MetricType::kHistogram) {
      EXPECT_EQ(sum.histogram(metric).count(), 40u) << metric.info().name;
    } else {
      EXPECT_EQ(sum[metric], one[metric] + other[metric]) << metric.info().name;
    }
  }
}

TEST(MetricValuesTest, UnknownNamesAreKeptAndMerged) {
  MetricSample number{"of_a_newer_node", MetricType::kCounter, 3, {}};
  MetricSample times{"of_a_newer_node_us", MetricType::kHistogram, 0, {}};
  times.histogram.Record(100);
  MetricValues values;
  values.Add(number);
  values.Add(times);
  MetricValues other = values;
  other.Merge(values);
  const std::vector<MetricSample> samples = other.Samples();
  ASSERT_EQ(samples.size(), kMetricCount + 2);
  EXPECT_EQ(samples[kMetricCount].name, "of_a_newer_node");
  EXPECT_EQ(samples[kMetricCount].value, 6u);
  EXPECT_EQ(samples[kMetricCount + 1].histogram.count(), 2u);
}

TEST(MetricValuesTest, ANameOfAnotherTypeIsIgnored) {
  MetricValues values;
  values.Add({"lookups", MetricType::kGauge, 3, {}});
  MetricSample times{"lookups", MetricType::kHistogram, 0, {}};
  times.histogram.Record(1);
  values.Add(times);
  values.Add({"lookup_us", MetricType::kCounter, 3, {}});
  EXPECT_EQ(values, MetricValues());
}

}  // namespace
}  // namespace kdn
