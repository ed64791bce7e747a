#include "kv/metric_table.h"

#include "kv/check.h"

namespace kdn {

std::string_view Name(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "gauge";
}

std::optional<Metric> Metric::Find(std::string_view name) {
  for (size_t i = 0; i < kMetricCount; ++i) {
    if (kMetricTable[i].name == name) return At(i);
  }
  return std::nullopt;
}

void Metric::NoSuchMetric() {
  KDN_CHECK(false, "the table of metrics lacks this name");
}

}  // namespace kdn
