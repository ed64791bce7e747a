#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "cli/commands.h"
#include "cli/connect.h"
#include "cli/status_json.h"
#include "rpc/client/client.h"

namespace kdn::cli {
namespace {

std::string Bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, value, kUnits[unit]);
}

std::string HitRate(uint64_t hits, uint64_t of) {
  if (of == 0) return "-";
  return absl::StrFormat(
      "%.1f %%", 100.0 * static_cast<double>(hits) / static_cast<double>(of));
}

std::string Milliseconds(uint64_t us) {
  const double ms = static_cast<double>(us) / 1000;
  return absl::StrFormat("%.*f", ms < 10 ? 2 : ms < 100 ? 1 : 0, ms);
}

std::string Quantiles(const Histogram& times) {
  if (times.count() == 0) return "-";
  return absl::StrCat(Milliseconds(times.Quantile(0.5)), " / ",
                      Milliseconds(times.Quantile(0.99)));
}

void PrintNodes(const std::vector<NodeStatus>& nodes) {
  std::printf("%-10s %-6s %-22s %8s %8s %10s %10s %10s %10s %9s\n", "node",
              "state", "gateway", "primary", "shards", "objects", "memory",
              "disk", "delivered", "hit rate");
  for (const NodeStatus& node : nodes) {
    if (!node.alive) {
      std::printf("%-10s %-6s %-22s\n", node.id.name().c_str(), "down",
                  node.gateway_address.c_str());
      continue;
    }
    const MetricValues& m = node.metrics;
    const uint64_t chunks = m["chunks_hit"] + m["chunks_missed"] +
                            m["chunks_failed"] + m["chunks_recomputed"];
    std::printf("%-10s %-6s %-22s %8llu %8llu %10llu %10s %10s %10s %9s\n",
                node.id.name().c_str(), "up", node.gateway_address.c_str(),
                static_cast<unsigned long long>(m["shards_primary"]),
                static_cast<unsigned long long>(m["shards_held"]),
                static_cast<unsigned long long>(m["objects"]),
                Bytes(m["memory_bytes"]).c_str(),
                Bytes(m["disk_live_bytes"]).c_str(),
                Bytes(m["engine_bytes_out"]).c_str(),
                HitRate(m["chunks_hit"], chunks).c_str());
  }
}

void PrintLatencies(const std::vector<NodeStatus>& nodes) {
  std::printf("\nms, p50 / p99:\n%-10s %15s %15s %15s %15s %15s %15s\n", "node",
              "lookup", "first layer", "retrieve", "commit", "peer fetch",
              "disk read");
  for (const NodeStatus& node : nodes) {
    if (!node.alive) continue;
    std::printf("%-10s", node.id.name().c_str());
    for (const Metric metric :
         {Metric("lookup_us"), Metric("retrieve_first_layer_us"),
          Metric("retrieve_us"), Metric("store_commit_us"),
          Metric("peer_fetch_us"), Metric("disk_read_us")}) {
      std::printf(" %15s", Quantiles(node.metrics.histogram(metric)).c_str());
    }
    std::printf("\n");
  }
}

std::string AgeOf(absl::Time created, absl::Time now) {
  if (created <= absl::UnixEpoch()) return "-";
  const absl::Duration age = std::max(now - created, absl::ZeroDuration());
  if (age >= absl::Hours(48)) {
    return absl::StrCat(age / absl::Hours(24), " days");
  }
  if (age >= absl::Hours(2)) return absl::StrCat(age / absl::Hours(1), " h");
  return absl::StrCat(age / absl::Minutes(1), " min");
}

// The live nodes that do not have the calibration.
std::string Lacking(const CalibrationEntry& entry,
                    const std::vector<NodeStatus>& nodes) {
  std::vector<std::string> names;
  for (const NodeStatus& node : nodes) {
    if (node.alive && std::find(entry.holders.begin(), entry.holders.end(),
                                node.id) == entry.holders.end()) {
      names.push_back(node.id.name());
    }
  }
  return names.empty() ? "none" : absl::StrJoin(names, ", ");
}

void PrintCalibrations(const std::vector<CalibrationEntry>& calibrations,
                       const std::vector<NodeStatus>& nodes) {
  if (calibrations.empty()) return;
  std::printf("\n%-13s %-13s %8s %10s  %s\n", "calibration", "of model", "age",
              "size", "live nodes without it");
  for (const CalibrationEntry& entry : calibrations) {
    std::printf("%-13s %-13s %8s %10s  %s\n", ShortHex(entry.id).c_str(),
                ShortHex(entry.model).c_str(),
                AgeOf(entry.created, absl::Now()).c_str(),
                Bytes(entry.bytes).c_str(), Lacking(entry, nodes).c_str());
  }
}

void Explain() {
  for (const MetricInfo& info : kMetricTable) {
    std::printf("%-28s %-10s %-13s %s\n", std::string(info.name).c_str(),
                std::string(Name(info.type)).c_str(),
                std::string(info.unit).c_str(), std::string(info.help).c_str());
  }
}

absl::Status Status(const GatewayToDial& gateway, bool json) {
  absl::StatusOr<std::unique_ptr<rpc::Client>> client = ConnectTo(gateway);
  if (!client.ok()) return client.status();
  const absl::StatusOr<std::vector<NodeStatus>> nodes =
      (*client)->Status(absl::Seconds(5));
  if (!nodes.ok()) return nodes.status();
  std::vector<CalibrationEntry> calibrations;
  if ((*client)->KeepsCalibrations()) {
    auto all = (*client)->Calibrations(absl::Seconds(5));
    if (!all.ok()) return all.status();
    calibrations = *std::move(all);
  }
  if (!json) {
    PrintNodes(*nodes);
    PrintLatencies(*nodes);
    PrintCalibrations(calibrations, *nodes);
    return absl::OkStatus();
  }
  std::printf("%s\n", StatusJson(*nodes, calibrations).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "status",
      "Show the nodes of a cluster: shards, bytes, hit rates, latencies\n\n"
      "  kdn status\n"
      "  kdn status --connect tls://kdn-a.internal:7303 --ca ca.pem --json\n"
      "  kdn status --explain\n\n"
      "primary: shards of which the node is the first owner\n"
      "shards: shards of which the node holds a copy\n"
      "objects, memory, disk: what the node stores now\n"
      "delivered: KV that the node's gateway has given to engines\n"
      "hit rate: share of the chunks asked of the node's gateway that it "
      "delivered\n"
      "calibrations: of the models whose KV base to base+2 and archive code; "
      "of one model, "
      "the first codes new chunks\n"
      "latencies: quantiles since the start of the node, at most 12.5 % above "
      "the true quantiles");
  auto gateway = std::make_shared<GatewayToDial>();
  auto json = std::make_shared<bool>(false);
  AddGatewayOptions(*command, *gateway);
  command->add_flag("--json", *json, "print every metric, as JSON");
  auto explain = std::make_shared<bool>(false);
  command->add_flag("--explain", *explain,
                    "describe each metric of --json; connects to no node");
  command->callback([&program, gateway, json, explain] {
    if (*explain) return Explain();
    program.exit_code = Report(Status(*gateway, *json));
  });
}

}  // namespace kdn::cli
