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

// One metric and its value, as every protocol carries it.
struct MetricSample {
  std::string name;
  MetricType type = MetricType::kGauge;
  uint64_t value = 0;   // of a counter or gauge
  Histogram histogram;  // of a histogram
  bool operator==(const MetricSample&) const = default;
};

// The values of all metrics of the table, 0 or empty at first. Also keeps the
// samples of a newer node that are not in this table. A plain value: a class
// without threads counts in a MetricValues of its own, reports add several of
// them, and tests compare them.
class MetricValues {
 public:
  // REQUIRES: the metric is a counter or a gauge.
  uint64_t& operator[](Metric metric);
  uint64_t operator[](Metric metric) const;
  // REQUIRES: the metric is a histogram.
  Histogram& histogram(Metric metric);
  const Histogram& histogram(Metric metric) const;

  // Adds the other's counters, gauges and histograms. Both are parts of one
  // node, so a gauge is set in one part only, or is a count that adds up over
  // the parts.
  void Merge(const MetricValues& other);

  // Every metric of the table in its order, then the unknown ones by name.
  std::vector<MetricSample> Samples() const;
  // Adds a sample, as Merge does. Keeps a sample with a name that is not in the
  // table. Ignores a sample that has another type in the table, because it
  // means something else there.
  void Add(const MetricSample& sample);

  bool operator==(const MetricValues&) const = default;

 private:
  std::array<uint64_t, kMetricCount> values_{};
  std::map<size_t, Histogram> histograms_;  // by metric; missing: empty
  std::map<std::string, MetricSample> unknown_;
};

}  // namespace kdn

#endif  // KDN_KV_METRIC_VALUES_H_
