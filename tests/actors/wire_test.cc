#include "actors/wire.h"

#include <gtest/gtest.h>

namespace kdn::actors {
namespace {

MetricValues EveryMetric() {
  MetricValues values;
  uint64_t next = 1;
  for (size_t i = 0; i < kMetricCount; ++i) {
    const Metric metric = Metric::At(i);
    if (metric.info().type == MetricType::kHistogram) {
      values.histogram(metric).Record(next++ * 1000);
      values.histogram(metric).Record(next++);
    } else {
      values[metric] = next++;
    }
  }
  return values;
}

TEST(ActorsWireTest, MetricsKeepNamesAndValues) {
  const MetricValues values = EveryMetric();
  EXPECT_EQ(FromWire(ToWire(values)), values);
}

TEST(ActorsWireTest, IdsOfCalibrationsKeepTheirBytes) {
  delivery::CalibrationIds ids;
  for (uint8_t i = 1; i < 4; ++i) {
    std::array<uint8_t, codec::CalibrationId::kSize> bytes{};
    bytes.fill(static_cast<uint8_t>(77 * i));
    ids.insert(codec::CalibrationId(bytes));
  }
  std::vector<char> packed = PackIds(ids);
  EXPECT_EQ(UnpackIds(packed), ids);
  packed.push_back('x');
  EXPECT_EQ(UnpackIds(packed), ids) << "a tail is dropped";
  EXPECT_TRUE(UnpackIds({}).empty());
}

TEST(ActorsWireTest, AMetricThatIsZeroIsLeftOut) {
  MetricValues values;
  EXPECT_TRUE(ToWire(values).empty());
  values["leases"] = 3;
  values.histogram("lookup_us").Record(0);
  EXPECT_EQ(ToWire(values).size(), 2u);
  EXPECT_EQ(FromWire(ToWire(values)), values);
}

TEST(ActorsWireTest, MetricsOfANewerPeerAreKept) {
  MetricValues values;
  values.Add({"newer", MetricType::kCounter, 7, {}});
  MetricSample times{"newer_us", MetricType::kHistogram, 0, {}};
  times.histogram.Record(100);
  values.Add(times);
  EXPECT_EQ(FromWire(ToWire(values)), values);
}

TEST(ActorsWireTest, MalformedMetricsOfAPeerDoNoHarm) {
  // A type that does not exist, and a bucket without a count.
  const std::vector<MetricItem> items = {
      {"newer", 200, 3, {}},
      {"lookup_us", static_cast<uint8_t>(MetricType::kHistogram), 9, {5, 1, 6}},
  };
  MetricValues expected;
  expected.Add({"newer", MetricType::kGauge, 3, {}});
  expected.histogram("lookup_us").AddBucket(5, 1);
  expected.histogram("lookup_us").AddSum(9);
  EXPECT_EQ(FromWire(items), expected);
}

}  // namespace
}  // namespace kdn::actors
