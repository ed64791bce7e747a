#include "kv/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace kdn {
namespace {

TEST(HistogramTest, BucketsFollowEachOtherWithoutGaps) {
  uint64_t smallest = 0;
  for (size_t bucket = 0; bucket < Histogram::kBucketCount; ++bucket) {
    const uint64_t largest = Histogram::AtMost(bucket);
    ASSERT_GE(largest, smallest);
    EXPECT_EQ(Histogram::BucketOf(smallest), bucket);
    EXPECT_EQ(Histogram::BucketOf(largest), bucket);
    EXPECT_LE(8 * (largest - smallest), smallest) << "width of " << bucket;
    smallest = largest + 1;
  }
  EXPECT_EQ(smallest, uint64_t{1} << Histogram::kValueBitsMax);
}

TEST(HistogramTest, LargerValuesCountInTheLastBucket) {
  Histogram histogram;
  histogram.Record(UINT64_MAX);
  EXPECT_EQ(histogram.Quantile(0.5),
            Histogram::AtMost(Histogram::kBucketCount - 1));
}

TEST(HistogramTest, EmptyHasNoQuantiles) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.sum(), 0u);
  EXPECT_EQ(histogram.Quantile(0.99), 0u);
  EXPECT_TRUE(histogram.Buckets().empty());
}

TEST(HistogramTest, SmallValuesAreExact) {
  Histogram histogram;
  for (uint64_t value = 0; value < 8; ++value) histogram.Record(value);
  EXPECT_EQ(histogram.Quantile(0), 0u);
  EXPECT_EQ(histogram.Quantile(0.5), 3u);
  EXPECT_EQ(histogram.Quantile(1), 7u);
  EXPECT_EQ(histogram.sum(), 28u);
}

// Log-uniform values, as latencies are.
std::vector<uint64_t> RandomValues(std::mt19937_64& random, size_t count) {
  std::uniform_real_distribution<double> log2(0, 30);
  std::vector<uint64_t> values;
  for (size_t i = 0; i < count; ++i) {
    values.push_back(static_cast<uint64_t>(std::exp2(log2(random))));
  }
  return values;
}

TEST(HistogramTest, QuantilesAreAtMostAnEighthAboveTheTrueOnes) {
  std::mt19937_64 random(7);
  for (const size_t count : {1u, 2u, 10u, 1000u, 20000u}) {
    std::vector<uint64_t> values = RandomValues(random, count);
    Histogram histogram;
    for (const uint64_t value : values) histogram.Record(value);
    std::sort(values.begin(), values.end());
    for (const double q : {0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
      const double rank = std::ceil(q * static_cast<double>(count));
      const size_t at = static_cast<size_t>(std::max(rank, 1.0)) - 1;
      const uint64_t true_value = values[at];
      EXPECT_GE(histogram.Quantile(q), true_value) << count << " " << q;
      EXPECT_LE(8 * histogram.Quantile(q), 9 * true_value) << count << " " << q;
    }
  }
}

TEST(HistogramTest, PartsMergeIntoTheWhole) {
  std::mt19937_64 random(8);
  Histogram whole;
  Histogram merged;
  for (int part = 0; part < 5; ++part) {
    Histogram histogram;
    for (const uint64_t value : RandomValues(random, 100)) {
      histogram.Record(value);
      whole.Record(value);
    }
    merged.Merge(histogram);
  }
  EXPECT_EQ(merged, whole);
  EXPECT_EQ(merged.count(), 500u);
}

TEST(HistogramTest, BucketsAndSumCarryEverything) {
  std::mt19937_64 random(9);
  Histogram histogram;
  for (const uint64_t value : RandomValues(random, 300)) {
    histogram.Record(value);
  }
  Histogram back;
  for (const Histogram::Bucket& bucket : histogram.Buckets()) {
    back.AddBucket(bucket.at_most, bucket.count);
  }
  back.AddSum(histogram.sum());
  EXPECT_EQ(back, histogram);
}

}  // namespace
}  // namespace kdn
