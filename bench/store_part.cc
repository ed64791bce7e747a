#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/bed.h"
#include "bench/parts.h"
#include "kv/clock.h"

namespace kdn::bench {
namespace {

constexpr size_t kWindow = 4;        // stores in flight
constexpr int kLooksPerCorpus = 50;  // how often the nodes' memory is read

absl::StatusOr<uint64_t> LargestRss(rpc::Client& client) {
  const auto nodes = client.Status(absl::Seconds(10));
  if (!nodes.ok()) return nodes.status();
  uint64_t most = 0;
  for (const NodeStatus& node : *nodes) {
    most = std::max(most, node.metrics["rss_bytes"]);
  }
  return most;
}

}  // namespace

absl::Status MeasureStore(const DeliveryOptions& options,
                          nlohmann::json& json) {
  const auto corpus_bytes = static_cast<uint64_t>(options.corpus_gb * 1e9);
  cli::LocalClusterOptions cluster;
  cluster.nodes = 2;
  cluster.replicas = 2;
  cluster.memory_bytes = 1ull << 30;
  cluster.disk_bytes = corpus_bytes + corpus_bytes / 5 + (1ull << 30);
  absl::StatusOr<std::unique_ptr<Bed>> bed =
      Bed::Start(options, cluster, ChunkBytes());
  if (!bed.ok()) return bed.status();
  const absl::StatusOr<uint64_t> before = LargestRss((*bed)->client());
  if (!before.ok()) return before.status();
  const int chunks = std::max(1, static_cast<int>(corpus_bytes / ChunkBytes()));
  const int look_every = std::max(1, chunks / kLooksPerCorpus);
  const bool on_terminal = isatty(STDERR_FILENO) == 1;
  uint64_t largest = *before;
  std::deque<std::unique_ptr<rpc::PendingStore>> window;
  const absl::Time begin = SteadyNow();
  for (int i = 0; i < chunks || !window.empty(); ++i) {
    if (i < chunks) {
      window.push_back((*bed)->knowledge().StoreAsync(
          SpecOf((*bed)->knowledge(), i), (*bed)->ViewAt(0),
          absl::Seconds(120)));
      if (window.size() < kWindow) continue;
    }
    const absl::StatusOr<StoreReceipt> receipt = window.front()->Await();
    if (!receipt.ok()) return receipt.status();
    window.pop_front();
    if (i % look_every != 0) continue;
    const absl::StatusOr<uint64_t> rss = LargestRss((*bed)->client());
    if (!rss.ok()) return rss.status();
    largest = std::max(largest, *rss);
    if (!on_terminal) continue;
    std::fprintf(stderr, "\r%d of %d chunks stored ", std::min(i, chunks),
                 chunks);
  }
  if (on_terminal) std::fputc('\n', stderr);
  const absl::Duration took = SteadyNow() - begin;
  const uint64_t bytes = static_cast<uint64_t>(chunks) * ChunkBytes();
  const uint64_t in_flight = kWindow * ChunkBytes();
  json["store_r2_gbps"] = GbpsOf(bytes, took);
  json["store_corpus_gb"] = static_cast<double>(bytes) / 1e9;
  json["store_in_flight_gb"] = static_cast<double>(in_flight) / 1e9;
  json["store_memory_budget_bytes"] = cluster.memory_bytes;
  json["store_rss_bytes"] = largest;
  json["store_rss_per_gb_in_flight"] =
      static_cast<double>(largest - *before) / static_cast<double>(in_flight);
  return absl::OkStatus();
}

}  // namespace kdn::bench
