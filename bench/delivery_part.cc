#include <algorithm>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/bed.h"
#include "bench/parts.h"
#include "bench/raw_limits.h"
#include "bench/speed_bed.h"
#include "bench/two_nodes.h"
#include "kv/clock.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr int kLookupKeys = 64;
constexpr int kLookups = 2000;

double Percentile(std::vector<double> values, double share) {
  const auto at =
      static_cast<ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

}  // namespace

namespace {

// `of_chunks` says which KV: random bits, which lossless stores as they are, or
// KV that lossless makes smaller, whose exponents have to be decoded.
absl::Status MeasureMemoryOf(const DeliveryOptions& options,
                             const TwoNodesOptions& of_chunks,
                             const std::string& prefix, Json& json) {
  absl::StatusOr<TwoNodes> nodes = StartTwoNodes(options, of_chunks);
  if (!nodes.ok()) return nodes.status();
  const size_t set_bytes = nodes->here.size() * ChunkBytes();
  const int threads =
      std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto deliver = [&]() -> absl::StatusOr<double> {
    const auto delivered = DeliverForASecond(*nodes->bed, nodes->here);
    if (!delivered.ok()) return delivered.status();
    return delivered->gbps;
  };
  // The first delivery is not counted: it touches every page for the first
  // time.
  if (const auto first = deliver(); !first.ok()) return first.status();
  const absl::StatusOr<Rates> rates = InTurns(
      deliver, [&] { return MemcpyGbps(set_bytes, ChunkBytes(), threads); });
  if (!rates.ok()) return rates.status();
  json[prefix + "_set_mb"] = set_bytes / 1000000;
  json[prefix + "_gbps"] = rates->ours;
  json[prefix + "_memcpy_gbps"] = rates->raw;
  json[prefix + "_over_memcpy"] = rates->ratio;
  json["memcpy_threads"] = threads;
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureMemory(const DeliveryOptions& options, Json& json) {
  if (absl::Status s = MeasureMemoryOf(options, {}, "shm", json); !s.ok()) {
    return s;
  }
  json["memcpy_gbps"] = json["shm_memcpy_gbps"];
  return MeasureMemoryOf(options, {.fill = FillWithSpectra}, "shm_coded", json);
}

namespace {

// Delivery between nodes with TLS, in turns with `plaintext`.
absl::Status MeasureRemoteTls(
    const DeliveryOptions& options,
    absl::FunctionRef<absl::StatusOr<double>()> plaintext, Json& json) {
  absl::StatusOr<TwoNodes> nodes = StartTwoNodes(options, {.tls = true});
  if (!nodes.ok()) return nodes.status();
  const auto deliver = [&]() -> absl::StatusOr<double> {
    const auto delivered = DeliverForASecond(*nodes->bed, nodes->there);
    if (!delivered.ok()) return delivered.status();
    return delivered->wire_gbps;
  };
  if (const auto first = deliver(); !first.ok()) return first.status();
  const absl::StatusOr<Rates> rates = InTurns(deliver, plaintext);
  if (!rates.ok()) return rates.status();
  json["remote_tls_wire_gbps"] = rates->ours;
  json["remote_tls_plaintext_gbps"] = rates->raw;
  json["remote_tls_over_plaintext"] = rates->ratio;
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureRemote(const DeliveryOptions& options, Json& json) {
  absl::StatusOr<TwoNodes> nodes = StartTwoNodes(options, {});
  if (!nodes.ok()) return nodes.status();
  double delivered_gbps = 0;
  const auto deliver = [&]() -> absl::StatusOr<double> {
    const auto delivered = DeliverForASecond(*nodes->bed, nodes->there);
    if (!delivered.ok()) return delivered.status();
    delivered_gbps = std::max(delivered_gbps, delivered->gbps);
    return delivered->wire_gbps;
  };
  if (const auto first = deliver(); !first.ok()) return first.status();
  delivered_gbps = 0;
  const size_t set_bytes = nodes->there.size() * ChunkBytes();
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
  if (!options.tls) return absl::OkStatus();
  return MeasureRemoteTls(options, deliver, json);
}

namespace {

absl::Status MeasureLookupOf(const DeliveryOptions& options,
                             const TwoNodesOptions& of_nodes,
                             const std::string& suffix, Json& json) {
  absl::StatusOr<TwoNodes> nodes = StartTwoNodes(options, of_nodes);
  if (!nodes.ok()) return nodes.status();
  std::vector<ChunkRef> held;
  for (const auto* chunks : {&nodes->here, &nodes->there}) {
    std::transform(chunks->begin(), chunks->end(), std::back_inserter(held),
                   RefOf);
  }
  std::vector<ChunkRef> keys;
  for (int i = 0; i < kLookupKeys; ++i)
    keys.push_back(held[i % kTwoNodesChunks]);
  std::vector<double> lookups;
  std::vector<double> pings;
  for (int i = 0; i < kLookups; ++i) {
    const absl::Time begin = SteadyNow();
    const auto found = nodes->bed->knowledge().Lookup(keys);
    if (!found.ok()) return found.status();
    const absl::Time middle = SteadyNow();
    const absl::Status ping = nodes->bed->client().Ping();
    if (!ping.ok()) return ping;
    lookups.push_back(absl::ToDoubleMicroseconds(middle - begin));
    pings.push_back(absl::ToDoubleMicroseconds(SteadyNow() - middle));
  }
  json["lookup" + suffix + "_p50_us"] = Percentile(lookups, 0.5);
  json["lookup" + suffix + "_p99_us"] = Percentile(lookups, 0.99);
  json["ping" + suffix + "_p50_us"] = Percentile(pings, 0.5);
  json["ping" + suffix + "_p99_us"] = Percentile(pings, 0.99);
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureLookup(const DeliveryOptions& options, Json& json) {
  const absl::Status plaintext = MeasureLookupOf(options, {}, "", json);
  if (!plaintext.ok() || !options.tls) return plaintext;
  return MeasureLookupOf(options, {.tls = true}, "_tls", json);
}

}  // namespace kdn::bench
