#include "cli/status_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace kdn::cli {
namespace {

nlohmann::json ToJson(const Histogram& histogram) {
  nlohmann::json buckets = nlohmann::json::array();
  for (const Histogram::Bucket& bucket : histogram.Buckets()) {
    buckets.push_back({bucket.at_most, bucket.count});
  }
  return {
      {"count", histogram.count()},      {"sum", histogram.sum()},
      {"p50", histogram.Quantile(0.5)},  {"p90", histogram.Quantile(0.9)},
      {"p99", histogram.Quantile(0.99)}, {"p999", histogram.Quantile(0.999)},
      {"buckets", std::move(buckets)}};
}

nlohmann::json ToJson(const NodeStatus& node,
                      const std::vector<CalibrationEntry>& calibrations) {
  nlohmann::json held = nlohmann::json::array();
  for (const CalibrationEntry& entry : calibrations) {
    if (std::find(entry.holders.begin(), entry.holders.end(), node.id) !=
        entry.holders.end()) {
      held.push_back(Hex(entry.id));
    }
  }
  nlohmann::json metrics = nlohmann::json::object();
  for (const MetricSample& sample : node.metrics.Samples()) {
    metrics[sample.name] = sample.type == MetricType::kHistogram
                               ? ToJson(sample.histogram)
                               : nlohmann::json(sample.value);
  }
  return {{"id", node.id.name()},
          {"alive", node.alive},
          {"gateway", node.gateway_address},
          {"calibrations", std::move(held)},
          {"metrics", std::move(metrics)}};
}

}  // namespace

std::string StatusJson(const std::vector<NodeStatus>& nodes,
                       const std::vector<CalibrationEntry>& calibrations) {
  nlohmann::json list = nlohmann::json::array();
  for (const NodeStatus& node : nodes) {
    list.push_back(ToJson(node, calibrations));
  }
  return list.dump(/*indent=*/2, /*indent_char=*/' ', /*ensure_ascii=*/false,
                   nlohmann::json::error_handler_t::replace);
}

}  // namespace kdn::cli
