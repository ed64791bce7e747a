#ifndef KDN_KV_METRIC_TABLE_H_
#define KDN_KV_METRIC_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kdn {

enum class MetricType : uint8_t {
  kCounter = 0,    // only grows; 0 at the start of the node
  kGauge = 1,      // the present value
  kHistogram = 2,  // a distribution since the start of the node
};
std::string_view Name(MetricType type);

struct MetricInfo {
  // The name in C++, in every protocol, in `kdn status --json` and in Python. A
  // dot ends the name of a group of metrics.
  std::string_view name;
  MetricType type;
  std::string_view unit;
  std::string_view help;
};

// All metrics that a node reports. A new metric takes a line here and the code
// that counts it: reports, protocols and commands iterate over this table.
inline constexpr MetricInfo kMetricTable[] = {
    // The node.
    {"epoch", MetricType::kGauge, "changes",
     "version of the node's view of the cluster; each change adds one"},
    {"shards_primary", MetricType::kGauge, "shards",
     "shards whose first owner is the node"},
    {"shards_held", MetricType::kGauge, "shards",
     "shards that the node keeps a copy of"},
    {"memory_budget_bytes", MetricType::kGauge, "bytes",
     "the configured memory: memory tier and passing buffers together"},
    {"rss_bytes", MetricType::kGauge, "bytes",
     "resident memory of the node's process"},
    {"uptime_s", MetricType::kGauge, "seconds",
     "time since the start of the node"},

    // Its storage. lookups = hits_memory + hits_disk + misses + failures.
    {"lookups", MetricType::kCounter, "requests",
     "lookups and reads that engines and peers asked of the storage"},
    {"hits_memory", MetricType::kCounter, "requests",
     "lookups that found the object in memory"},
    {"hits_disk", MetricType::kCounter, "requests",
     "lookups that found the object on disk only"},
    {"misses", MetricType::kCounter, "requests",
     "lookups of objects that the node does not hold"},
    {"failures", MetricType::kCounter, "requests",
     "reads that were refused: no room, a passed deadline, or a disk error"},
    {"commits", MetricType::kCounter, "objects", "objects that became visible"},
    {"commits_existed", MetricType::kCounter, "objects",
     "commits of objects that the node held already"},
    {"evictions", MetricType::kCounter, "objects",
     "objects dropped from memory that stay on disk"},
    {"evictions_lost", MetricType::kCounter, "objects",
     "objects dropped altogether to make room"},
    {"damaged", MetricType::kCounter, "objects",
     "copies that failed a checksum or could not be parsed"},
    {"removed", MetricType::kCounter, "objects",
     "objects that engines removed"},
    {"disk_write_failures", MetricType::kCounter, "objects",
     "writes that the disk tier failed or refused; the object stays in memory "
     "and is written again"},
    {"objects", MetricType::kGauge, "objects", "visible objects"},
    {"memory_objects", MetricType::kGauge, "objects",
     "visible objects in memory"},
    {"memory_bytes", MetricType::kGauge, "bytes",
     "bytes of the memory tier in use, objects under construction included"},
    {"disk_bytes", MetricType::kGauge, "bytes",
     "bytes of visible objects that are on disk"},
    {"leases", MetricType::kGauge, "leases", "leases that engines hold"},

    // Its disk tier.
    {"disk_live_bytes", MetricType::kGauge, "bytes",
     "bytes of the records on disk that are still valid"},
    {"disk_segment_bytes", MetricType::kGauge, "bytes",
     "bytes of the segment files, dead records included"},
    {"disk_segments", MetricType::kGauge, "files", "segment files"},
    {"disk_objects", MetricType::kGauge, "objects", "objects on disk"},
    {"disk_writes", MetricType::kCounter, "objects", "objects written to disk"},
    {"disk_reads", MetricType::kCounter, "objects", "objects read from disk"},
    {"disk_bytes_written", MetricType::kCounter, "bytes",
     "bytes of the objects written to disk"},
    {"disk_bytes_read", MetricType::kCounter, "bytes",
     "bytes of the objects read from disk"},
    {"disk_evictions", MetricType::kCounter, "objects",
     "objects dropped from disk to make room"},
    {"disk_damaged", MetricType::kCounter, "objects",
     "records on disk that failed a checksum and were dropped"},
    {"disk_cleaned_segments", MetricType::kCounter, "files",
     "segment files deleted after their live records were written again"},
    {"disk_rebuilt_objects", MetricType::kGauge, "objects",
     "objects that the last start found in segments, not in the index"},
    {"disk_io_uring", MetricType::kGauge, "0 or 1",
     "1: the disk tier uses io_uring"},
    {"disk_direct", MetricType::kGauge, "0 or 1",
     "1: the disk tier bypasses the page cache with O_DIRECT"},
    {"disk_write_us", MetricType::kHistogram, "microseconds",
     "a write to disk, from the request of the storage to its answer"},
    {"disk_read_us", MetricType::kHistogram, "microseconds",
     "a read from disk, from the request of the storage to its answer"},

    // Engines at the node's gateway. chunks_hit + chunks_missed + chunks_failed
    // + chunks_recomputed = chunks that engines asked for.
    {"stores", MetricType::kCounter, "objects",
     "stores that were answered with a receipt"},
    {"retrieves", MetricType::kCounter, "requests",
     "retrieves that the gateway passed to the node; an inline retrieve counts "
     "once per window"},
    {"chunks_hit", MetricType::kCounter, "chunks",
     "chunks delivered to engines"},
    {"chunks_missed", MetricType::kCounter, "chunks",
     "chunks that no node holds"},
    {"chunks_failed", MetricType::kCounter, "chunks",
     "chunks that a node holds but that could not be delivered"},
    {"chunks_recomputed", MetricType::kCounter, "chunks",
     "chunks left to the engine: prefilling is faster, or the deadline too "
     "near"},
    {"engine_bytes_in", MetricType::kCounter, "bytes",
     "bytes of KV taken from engines"},
    {"engine_bytes_out", MetricType::kCounter, "bytes",
     "bytes of KV delivered to engines"},
    {"engines_refused", MetricType::kCounter, "connections",
     "hellos of engines that were refused, and engines that the gateway hung "
     "up on: too many connections, too large or stalled messages, unread "
     "answers, failed TLS handshakes"},
    {"lookup_us", MetricType::kHistogram, "microseconds",
     "a lookup of an engine, from its arrival at the gateway to its answer"},
    {"retrieve_first_layer_us", MetricType::kHistogram, "microseconds",
     "a retrieve, from its arrival at the gateway to its first complete layer"},
    {"retrieve_us", MetricType::kHistogram, "microseconds",
     "a retrieve, from its arrival at the gateway to its answer"},
    {"store_commit_us", MetricType::kHistogram, "microseconds",
     "a commit of a store, from its arrival at the gateway to its answer"},
    {"pool_wait_us", MetricType::kHistogram, "microseconds",
     "the wait of a task (to encode, decode or verify) for a worker thread"},

    // Its peers. Over all nodes, the sums of peer_bytes_in and peer_bytes_out
    // differ by transfers that broke off or are in progress, and by restarts.
    {"peer_bytes_in", MetricType::kCounter, "bytes",
     "bytes of pushed objects and of fetched streams that came from peers"},
    {"peer_bytes_out", MetricType::kCounter, "bytes",
     "bytes of pushed objects and of fetched streams that went to peers"},
    {"peer_fetch_us", MetricType::kHistogram, "microseconds",
     "a fetch from a peer, the wait for a connection included"},
    {"peer_push_us", MetricType::kHistogram, "microseconds",
     "a push to a peer, the wait for a connection included"},
    {"peer_calibration_us", MetricType::kHistogram, "microseconds",
     "a calibration fetched from a peer, the wait for a connection included"},
    {"peer_refused", MetricType::kCounter, "connections",
     "connections of peers that were refused: failed TLS handshake, wrong "
     "hello, malformed messages, too many"},

    // Rate control of fetches from peers. A plan is the peer's choice of levels
    // for one fetch. Times end when the last layer is decoded.
    {"rate.plans", MetricType::kCounter, "fetches",
     "fetches that a peer planned: it chose their levels"},
    {"rate.plans_blind", MetricType::kCounter, "fetches",
     "fetches over links of unknown rate; the predictions below leave them "
     "out"},
    {"rate.chunks_loaded", MetricType::kCounter, "chunks",
     "chunks that planned fetches loaded"},
    {"rate.chunks_recomputed", MetricType::kCounter, "chunks",
     "chunks that planned fetches left to the engine"},
    {"rate.bytes_predicted", MetricType::kCounter, "bytes",
     "bytes that the plans predicted"},
    {"rate.bytes_actual", MetricType::kCounter, "bytes", "bytes that arrived"},
    {"rate.load_us_predicted", MetricType::kCounter, "microseconds",
     "time that the plans predicted for loading"},
    {"rate.load_us_actual", MetricType::kCounter, "microseconds",
     "time that loading took"},
    {"rate.late", MetricType::kCounter, "fetches",
     "fetches that took longer than predicted by more than a quarter"},
    {"rate.slower_than_recompute", MetricType::kCounter, "fetches",
     "fetches that took longer than the engine's own prefill would have"},
};
inline constexpr size_t kMetricCount = std::size(kMetricTable);

// One metric: a line of the table. C++ code names it by a string, as in
// Metric("lookups"), which the compiler looks up. A name that is not in the
// table does not compile.
class Metric {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): values["lookups"]
  consteval Metric(const char* name) : index_(IndexOf(name)) {}
  // REQUIRES: index < kMetricCount.
  static constexpr Metric At(size_t index) { return Metric(index); }
  // Nullopt when the table does not have the name, which a newer node's table
  // may have.
  static std::optional<Metric> Find(std::string_view name);

  constexpr size_t index() const { return index_; }
  constexpr const MetricInfo& info() const { return kMetricTable[index_]; }
  constexpr bool operator==(const Metric&) const = default;

 private:
  constexpr explicit Metric(size_t index) : index_(index) {}
  static constexpr size_t IndexOf(std::string_view name) {
    for (size_t i = 0; i < kMetricCount; ++i) {
      if (kMetricTable[i].name == name) return i;
    }
    NoSuchMetric();
    return 0;
  }
  // Not constexpr, so that a constant expression that calls it does not
  // compile.
  static void NoSuchMetric();

  size_t index_;
};

}  // namespace kdn

#endif  // KDN_KV_METRIC_TABLE_H_
