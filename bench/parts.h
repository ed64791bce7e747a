#ifndef KDN_BENCH_PARTS_H_
#define KDN_BENCH_PARTS_H_

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "bench/delivery_bench.h"

// The parts of the delivery benchmark. Each part adds its figures to `json`.
namespace kdn::bench {

// Delivery from the engine's own node into shared memory, next to memcpy. Once
// with random bits, which lossless keeps as they are, and once with KV that
// lossless makes smaller.
absl::Status MeasureMemory(const DeliveryOptions& options,
                           nlohmann::json& json);
// Delivery from the other node into shared memory, next to a raw TCP stream.
absl::Status MeasureRemote(const DeliveryOptions& options,
                           nlohmann::json& json);
// Delivery from the other node over shaped links, each level next to a raw TCP
// stream. The figure is "not measured" and the reason where the system allows
// no network namespace.
absl::Status MeasureLink(const DeliveryOptions& options, nlohmann::json& json);
// Latency of a lookup of 64 keys, half of them on the other node, next to the
// latency of an empty call.
absl::Status MeasureLookup(const DeliveryOptions& options,
                           nlohmann::json& json);
// The disk tier alone, with objects of 2 MB, next to the bare disk.
absl::Status MeasureDisk(const DeliveryOptions& options, nlohmann::json& json);
// Storing a large corpus with 2 replicas through memory tiers of 1 GB.
absl::Status MeasureStore(const DeliveryOptions& options, nlohmann::json& json);

}  // namespace kdn::bench

#endif  // KDN_BENCH_PARTS_H_
