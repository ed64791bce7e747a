#include "kv/meters.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace kdn {
namespace {

TEST(MetersTest, ReadsWhatWasCounted) {
  Meters meters;
  EXPECT_EQ(meters.Read(), MetricValues());
  meters.Add("stores");
  meters.Add("engine_bytes_in", 100);
  meters.Record("lookup_us", absl::Milliseconds(2));
  meters.Record("lookup_us", -absl::Seconds(1));
  EXPECT_EQ(meters.Get("stores"), 1u);
  MetricValues expected;
  expected["stores"] = 1;
  expected["engine_bytes_in"] = 100;
  expected.histogram("lookup_us").AddBucket(2000, 1);
  expected.histogram("lookup_us").AddBucket(0, 1);
  expected.histogram("lookup_us").AddSum(2000);
  EXPECT_EQ(meters.Read(), expected);
}

TEST(MetersTest, ThreadsCountTogether) {
  Meters meters;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&meters] {
      for (int n = 0; n < 1000; ++n) {
        meters.Add("chunks_hit");
        meters.Record("retrieve_us", absl::Microseconds(n));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(meters.Get("chunks_hit"), 4000u);
  const Histogram times = meters.Read().histogram("retrieve_us");
  EXPECT_EQ(times.count(), 4000u);
  EXPECT_EQ(times.sum(), 4u * 999 * 1000 / 2);
}

}  // namespace
}  // namespace kdn
