#include "cli/status_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace kdn::cli {
namespace {

NodeStatus Node() {
  return NodeStatus{.id = NodeId("n1"),
                    .gateway_address = "host:1",
                    .alive = true,
                    .metrics = {}};
}

nlohmann::json Parsed(const NodeStatus& node) {
  const nlohmann::json list = nlohmann::json::parse(StatusJson({node}));
  EXPECT_EQ(list.size(), 1u);
  return list.at(0);
}

TEST(StatusJsonTest, MetricsAreUnderTheirNames) {
  NodeStatus node = Node();
  node.metrics["lookups"] = 3;
  node.metrics["rate.plans"] = 2;
  node.metrics.histogram("lookup_us").Record(5);
  const nlohmann::json json = Parsed(node);
  EXPECT_EQ(json.at("id"), "n1");
  EXPECT_EQ(json.at("alive"), true);
  EXPECT_EQ(json.at("gateway"), "host:1");
  const nlohmann::json& metrics = json.at("metrics");
  EXPECT_EQ(metrics.size(), kMetricCount);
  EXPECT_EQ(metrics.at("lookups"), 3);
  EXPECT_EQ(metrics.at("rate.plans"), 2);
  EXPECT_EQ(metrics.at("lookup_us").at("count"), 1);
  EXPECT_EQ(metrics.at("lookup_us").at("p99"), 5);
}

TEST(StatusJsonTest, NoNameOfANewerNodeCollidesOrBreaksTheText) {
  NodeStatus node = Node();
  node.metrics["rate.plans"] = 2;
  for (const char* name : {"id", "rate", "", "a/b", "~", "\"\n"}) {
    node.metrics.Add({name, MetricType::kGauge, 7, {}});
  }
  node.metrics.Add({"not UTF-8: \xff", MetricType::kGauge, 8, {}});
  const nlohmann::json json = Parsed(node);
  EXPECT_EQ(json.at("id"), "n1");
  const nlohmann::json& metrics = json.at("metrics");
  EXPECT_EQ(metrics.at("rate.plans"), 2);
  for (const char* name : {"id", "rate", "", "a/b", "~", "\"\n"}) {
    EXPECT_EQ(metrics.at(name), 7) << name;
  }
  EXPECT_EQ(metrics.at("not UTF-8: \xEF\xBF\xBD"), 8);
}

}  // namespace
}  // namespace kdn::cli
