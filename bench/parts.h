#ifndef KDN_BENCH_PARTS_H_
#define KDN_BENCH_PARTS_H_

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "bench/delivery_bench.h"

// The parts of the delivery benchmark; each adds its figures to `json`.
namespace kdn::bench {

// From the node at hand into the engine's shared memory, next to memcpy: random
// bits, which lossless keeps as they are, and KV that it makes smaller.
absl::Status MeasureMemory(const DeliveryOptions& options,
                           nlohmann::json& json);
// From another node into the same place, next to a raw TCP stream.
absl::Status MeasureRemote(const DeliveryOptions& options,
                           nlohmann::json& json);
// From another node over shaped links, each level next to a raw TCP stream.
// "not measured" where no network namespace can be had.
absl::Status MeasureLink(const DeliveryOptions& options, nlohmann::json& json);
// Lookups of 64 keys, half of them on the other node, next to empty calls.
absl::Status MeasureLookup(const DeliveryOptions& options,
                           nlohmann::json& json);
// The disk tier alone on objects of 2 MB, next to the bare disk.
absl::Status MeasureDisk(const DeliveryOptions& options, nlohmann::json& json);
// A corpus stored with R = 2 through memory tiers of 1 GB.
absl::Status MeasureStore(const DeliveryOptions& options, nlohmann::json& json);

}  // namespace kdn::bench

#endif  // KDN_BENCH_PARTS_H_
