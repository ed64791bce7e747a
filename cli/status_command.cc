#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands.h"
#include "cli/connect.h"
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

void PrintTable(const std::vector<rpc::NodeStatus>& nodes) {
  std::printf("%-10s %-6s %-22s %8s %8s %10s %10s %10s %10s %9s\n", "node",
              "state", "gateway", "primary", "shards", "objects", "memory",
              "disk", "delivered", "hit rate");
  for (const rpc::NodeStatus& node : nodes) {
    if (!node.alive) {
      std::printf("%-10s %-6s %-22s\n", node.id.name().c_str(), "down",
                  node.gateway_address.c_str());
      continue;
    }
    const uint64_t chunks = node.chunks_hit + node.chunks_missed +
                            node.chunks_failed + node.chunks_recomputed;
    std::printf("%-10s %-6s %-22s %8llu %8llu %10llu %10s %10s %10s %9s\n",
                node.id.name().c_str(), "up", node.gateway_address.c_str(),
                static_cast<unsigned long long>(node.shards_primary),
                static_cast<unsigned long long>(node.shards_held),
                static_cast<unsigned long long>(node.store.objects),
                Bytes(node.store.memory_bytes).c_str(),
                Bytes(node.disk.live_bytes).c_str(),
                Bytes(node.engine_bytes_out).c_str(),
                HitRate(node.chunks_hit, chunks).c_str());
  }
}

nlohmann::json ToJson(const rpc::RateCounters& c) {
  return {{"plans", c.plans},
          {"plans_blind", c.plans_blind},
          {"chunks_loaded", c.chunks_loaded},
          {"chunks_recomputed", c.chunks_recomputed},
          {"bytes_predicted", c.bytes_predicted},
          {"bytes_actual", c.bytes_actual},
          {"load_us_predicted", c.load_us_predicted},
          {"load_us_actual", c.load_us_actual},
          {"late", c.late},
          {"slower_than_recompute", c.slower_than_recompute}};
}

nlohmann::json ToJson(const rpc::NodeStatus& n) {
  return {{"id", n.id.name()},
          {"alive", n.alive},
          {"gateway", n.gateway_address},
          {"epoch", n.epoch},
          {"shards_primary", n.shards_primary},
          {"shards_held", n.shards_held},
          {"objects", n.store.objects},
          {"lookups", n.store.lookups},
          {"hits_memory", n.store.hits_memory},
          {"hits_disk", n.store.hits_disk},
          {"misses", n.store.misses},
          {"failures", n.store.failures},
          {"commits", n.store.commits},
          {"evictions", n.store.evictions},
          {"evictions_lost", n.store.evictions_lost},
          {"damaged", n.store.damaged},
          {"memory_bytes", n.store.memory_bytes},
          {"leases", n.store.leases},
          {"disk_live_bytes", n.disk.live_bytes},
          {"disk_segment_bytes", n.disk.segment_bytes},
          {"disk_io_uring", n.disk.io_uring},
          {"stores", n.stores},
          {"retrieves", n.retrieves},
          {"chunks_hit", n.chunks_hit},
          {"chunks_missed", n.chunks_missed},
          {"chunks_failed", n.chunks_failed},
          {"chunks_recomputed", n.chunks_recomputed},
          {"rate", ToJson(n.rate)},
          {"peer_bytes_in", n.peer_bytes_in},
          {"peer_bytes_out", n.peer_bytes_out},
          {"engine_bytes_in", n.engine_bytes_in},
          {"engine_bytes_out", n.engine_bytes_out},
          {"rss_bytes", n.rss_bytes},
          {"uptime_s", n.uptime_s}};
}

absl::Status Status(const std::string& address, bool json) {
  absl::StatusOr<std::unique_ptr<rpc::Client>> client = ConnectTo(address);
  if (!client.ok()) return client.status();
  const absl::StatusOr<std::vector<rpc::NodeStatus>> nodes =
      (*client)->Status(absl::Seconds(5));
  if (!nodes.ok()) return nodes.status();
  if (!json) {
    PrintTable(*nodes);
    return absl::OkStatus();
  }
  nlohmann::json list = nlohmann::json::array();
  for (const rpc::NodeStatus& node : *nodes) list.push_back(ToJson(node));
  std::printf("%s\n", list.dump(2).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "status",
      "Show the nodes of a cluster: shards, bytes, hit rates\n\n"
      "  kdn status\n"
      "  kdn status --connect kdn-a.internal:7303 --json\n\n"
      "primary: shards of which the node is the first owner\n"
      "shards: shards of which the node holds a copy\n"
      "objects, memory, disk: what the node stores now\n"
      "delivered: KV that the node's gateway has given to engines\n"
      "hit rate: share of the chunks asked of the node's gateway that it "
      "delivered");
  auto address = std::make_shared<std::string>(kDefaultAddress);
  auto json = std::make_shared<bool>(false);
  command
      ->add_option("--connect", *address,
                   "gateway of any node: unix:/path or host:port")
      ->capture_default_str();
  command->add_flag("--json", *json, "print every number, as JSON");
  command->callback([&program, address, json] {
    program.exit_code = Report(Status(*address, *json));
  });
}

}  // namespace kdn::cli
