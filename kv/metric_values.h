#ifndef KDN_KV_METRIC_VALUES_H_
#define KDN_KV_METRIC_VALUES_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kv/histogram.h"
#include "kv/metric_table.h"

namespace kdn {

// One metric and its value, as every wire carries it.
struct MetricSample {
  std::string name;
  MetricType type = MetricType::kGauge;
  uint64_t value = 0;   // of a counter or gauge
  Histogram histogram;  // of a histogram
  bool operator==(const MetricSample&) const = default;
};

// A value for every metric of the table, 0 or empty at first, and the samples
// whose names only a newer node's table has. A value: classes without threads
// count into one, reports are sums of several, tests compare them.
class MetricValues {
 public:
  // REQUIRES: a counter or a gauge.
  uint64_t& operator[](Metric metric);
  uint64_t operator[](Metric metric) const;
  // REQUIRES: a histogram.
  Histogram& histogram(Metric metric);
  const Histogram& histogram(Metric metric) const;

  // Adds the other's counters, gauges and buckets: both are parts of one node,
  // and a gauge is set in one part, or counts things that each part has.
  void Merge(const MetricValues& other);

  // Every metric of the table in its order, then the unknown ones by name.
  std::vector<MetricSample> Samples() const;
  // Adds a sample, as Merge. A name that the table lacks is kept. A name that
  // has another type in the table is ignored: it means something else there.
  void Add(const MetricSample& sample);

  bool operator==(const MetricValues&) const = default;

 private:
  std::array<uint64_t, kMetricCount> values_{};
  std::map<size_t, Histogram> histograms_;  // those that are not empty
  std::map<std::string, MetricSample> unknown_;
};

}  // namespace kdn

#endif  // KDN_KV_METRIC_VALUES_H_
