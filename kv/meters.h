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

// The counters and histograms of one node, which all its threads share.
// Counting is one atomic addition, or two for a histogram, and takes no lock.
// Thread-safe.
class Meters {
 public:
  Meters();

  // REQUIRES: the metric is a counter.
  void Add(Metric counter, uint64_t count = 1);
  // Records a duration in microseconds; a negative duration counts as zero.
  // REQUIRES: the metric is a histogram.
  void Record(Metric histogram, absl::Duration took);

  uint64_t Get(Metric counter) const;
  // All values. They are not of one moment, because other threads go on
  // counting.
  MetricValues Read() const;

 private:
  struct Distribution {
    std::array<std::atomic<uint64_t>, Histogram::kBucketCount> counts{};
    std::atomic<uint64_t> sum{0};
  };
  std::array<std::atomic<uint64_t>, kMetricCount> counters_{};
  // By metric; null unless the metric is a histogram.
  std::array<std::unique_ptr<Distribution>, kMetricCount> distributions_;
};

}  // namespace kdn

#endif  // KDN_KV_METERS_H_
