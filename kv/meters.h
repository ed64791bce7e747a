#ifndef KDN_KV_METERS_H_
#define KDN_KV_METERS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/time/time.h"
#include "kv/histogram.h"
#include "kv/metric_values.h"

namespace kdn {

// What the threads of one node count together: a counter for each metric, and
// the histograms. Counting is one atomic addition (two for a histogram) and
// takes no lock. Thread-safe.
class Meters {
 public:
  Meters();

  // REQUIRES: a counter.
  void Add(Metric counter, uint64_t count = 1);
  // Counts a time in microseconds; one below zero is zero. REQUIRES: a
  // histogram.
  void Record(Metric histogram, absl::Duration took);

  uint64_t Get(Metric counter) const;
  // All of them. Not one moment: threads go on counting.
  MetricValues Read() const;

 private:
  struct Distribution {
    std::array<std::atomic<uint64_t>, Histogram::kBucketCount> counts{};
    std::atomic<uint64_t> sum{0};
  };
  std::array<std::atomic<uint64_t>, kMetricCount> counters_{};
  // Null for what is no histogram.
  std::array<std::unique_ptr<Distribution>, kMetricCount> distributions_;
};

}  // namespace kdn

#endif  // KDN_KV_METERS_H_
