#include <algorithm>
#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bench/bed.h"
#include "bench/parts.h"
#include "bench/raw_limits.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr absl::Duration kTurn = absl::Seconds(1);
constexpr int kChunks = 24;  // about 12 on each node: 400 MB
constexpr int kLookupKeys = 64;
constexpr int kLookups = 2000;

// Two nodes with no replicas, each holding about half of kChunks in memory.
struct Filled {
  std::unique_ptr<Bed> bed;
  std::vector<rpc::StoreSpec> here;
  std::vector<rpc::StoreSpec> there;
};

absl::StatusOr<Filled> Fill(const DeliveryOptions& options) {
  cli::LocalClusterOptions cluster;
  cluster.nodes = 2;
  cluster.replicas = 1;
  cluster.memory_bytes = 3ull << 30;
  cluster.disk_bytes = 0;
  absl::StatusOr<std::unique_ptr<Bed>> bed =
      Bed::Start(options, cluster, kChunks * ChunkBytes());
  if (!bed.ok()) return bed.status();
  Filled filled;
  filled.bed = *std::move(bed);
  const NodeId self = filled.bed->client().node().id;
  rpc::Knowledge& knowledge = filled.bed->knowledge();
  for (int i = 0; i < kChunks; ++i) {
    rpc::StoreSpec spec = SpecOf(knowledge, i);
    const absl::StatusOr<rpc::StoreReceipt> receipt =
        knowledge.Store(spec, filled.bed->ViewAt(0), absl::Seconds(60));
    if (!receipt.ok()) return receipt.status();
    (receipt->holders[0] == self ? filled.here : filled.there)
        .push_back(std::move(spec));
  }
  return filled;
}

struct Delivered {
  double gbps = 0;
  double wire_gbps = 0;  // of bytes that crossed between nodes
};

// Retrieves the chunks into shared memory again and again for one turn.
absl::StatusOr<Delivered> Deliver(Bed& bed,
                                  const std::vector<rpc::StoreSpec>& chunks) {
  rpc::RetrieveSpec spec;
  for (size_t i = 0; i < chunks.size(); ++i) {
    spec.chunks.push_back(
        {RefOf(chunks[i]), chunks[i].positions, bed.ViewAt(i * ChunkBytes())});
  }
  uint64_t bytes = 0;
  uint64_t wire = 0;
  const absl::Time begin = absl::Now();
  while (absl::Now() - begin < kTurn) {
    const auto outcomes =
        bed.knowledge().Retrieve(spec, nullptr, absl::Seconds(60));
    if (!outcomes.ok()) return outcomes.status();
    for (const rpc::ChunkOutcome& outcome : *outcomes) {
      if (outcome.kind != rpc::OutcomeKind::kHit) {
        return absl::InternalError(
            absl::StrCat("a chunk was not delivered: ", outcome.why.message()));
      }
      wire += outcome.wire_bytes;
      bytes += ChunkBytes();
    }
  }
  const absl::Duration took = absl::Now() - begin;
  return Delivered{GbpsOf(bytes, took), GbpsOf(wire, took)};
}

double Percentile(std::vector<double> values, double share) {
  const auto at =
      static_cast<ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

}  // namespace

absl::Status MeasureMemory(const DeliveryOptions& options, Json& json) {
  absl::StatusOr<Filled> filled = Fill(options);
  if (!filled.ok()) return filled.status();
  const size_t set_bytes = filled->here.size() * ChunkBytes();
  const int threads =
      std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto deliver = [&]() -> absl::StatusOr<double> {
    const auto delivered = Deliver(*filled->bed, filled->here);
    if (!delivered.ok()) return delivered.status();
    return delivered->gbps;
  };
  // Once before: the first touch of every page is not counted.
  if (const auto first = deliver(); !first.ok()) return first.status();
  const absl::StatusOr<Rates> rates = InTurns(
      deliver, [&] { return MemcpyGbps(set_bytes, ChunkBytes(), threads); });
  if (!rates.ok()) return rates.status();
  json["shm_set_mb"] = set_bytes / 1000000;
  json["shm_gbps"] = rates->ours;
  json["memcpy_gbps"] = rates->raw;
  json["memcpy_threads"] = threads;
  json["shm_over_memcpy"] = rates->ratio;
  return absl::OkStatus();
}

absl::Status MeasureRemote(const DeliveryOptions& options, Json& json) {
  absl::StatusOr<Filled> filled = Fill(options);
  if (!filled.ok()) return filled.status();
  double delivered_gbps = 0;
  const auto deliver = [&]() -> absl::StatusOr<double> {
    const auto delivered = Deliver(*filled->bed, filled->there);
    if (!delivered.ok()) return delivered.status();
    delivered_gbps = std::max(delivered_gbps, delivered->gbps);
    return delivered->wire_gbps;
  };
  if (const auto first = deliver(); !first.ok()) return first.status();
  delivered_gbps = 0;
  const size_t set_bytes = filled->there.size() * ChunkBytes();
  const absl::StatusOr<Rates> rates =
      InTurns(deliver, [] { return TcpGbps(kTcpBlockBytes); });
  if (!rates.ok()) return rates.status();
  const absl::StatusOr<Rates> same_set =
      InTurns(deliver, [&] { return TcpGbps(set_bytes); });
  if (!same_set.ok()) return same_set.status();
  json["remote_set_mb"] = set_bytes / 1000000;
  json["remote_wire_gbps"] = rates->ours;
  json["remote_delivered_gbps_best"] = delivered_gbps;
  json["tcp_gbps"] = rates->raw;
  json["remote_over_tcp"] = rates->ratio;
  json["tcp_same_set_gbps"] = same_set->raw;
  json["remote_over_tcp_same_set"] = same_set->ratio;
  return absl::OkStatus();
}

absl::Status MeasureLookup(const DeliveryOptions& options, Json& json) {
  absl::StatusOr<Filled> filled = Fill(options);
  if (!filled.ok()) return filled.status();
  std::vector<ChunkRef> held;
  for (const auto* chunks : {&filled->here, &filled->there}) {
    std::transform(chunks->begin(), chunks->end(), std::back_inserter(held),
                   RefOf);
  }
  std::vector<ChunkRef> keys;
  for (int i = 0; i < kLookupKeys; ++i) keys.push_back(held[i % kChunks]);
  std::vector<double> lookups;
  std::vector<double> pings;
  for (int i = 0; i < kLookups; ++i) {
    const absl::Time begin = absl::Now();
    const auto found = filled->bed->knowledge().Lookup(keys);
    if (!found.ok()) return found.status();
    const absl::Time middle = absl::Now();
    const absl::Status ping = filled->bed->client().Ping();
    if (!ping.ok()) return ping;
    lookups.push_back(absl::ToDoubleMicroseconds(middle - begin));
    pings.push_back(absl::ToDoubleMicroseconds(absl::Now() - middle));
  }
  json["lookup_p50_us"] = Percentile(lookups, 0.5);
  json["lookup_p99_us"] = Percentile(lookups, 0.99);
  json["ping_p50_us"] = Percentile(pings, 0.5);
  json["ping_p99_us"] = Percentile(pings, 0.99);
  return absl::OkStatus();
}

}  // namespace kdn::bench
