#ifndef KDN_BENCH_TWO_NODES_H_
#define KDN_BENCH_TWO_NODES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bench/bed.h"
#include "bench/delivery_bench.h"
#include "kv/level.h"
#include "rpc/client/client.h"

namespace kdn::bench {

// Two nodes without replicas. Each holds about half of the chunks in memory.
struct TwoNodes {
  std::unique_ptr<Bed> bed;
  std::vector<rpc::StoreSpec> here;   // chunks at the engine's node
  std::vector<rpc::StoreSpec> there;  // chunks at the other node
};
inline constexpr int kTwoNodesChunks = 24;  // about 12 on each node: 400 MB

struct TwoNodesOptions {
  LevelSet levels = LevelSet::Of(Level::kLossless);
  std::string calibrations = {};  // a directory; empty: none
  // Fills a chunk before it is stored; null: random bits.
  void (*fill)(const MutableKvView&) = nullptr;
  // Whether every token's position is 0; else the positions are 0, 1, …
  bool computed_at_zero = false;
  // Whether the nodes have certificates, and so speak TLS to each other.
  bool tls = false;
};
absl::StatusOr<TwoNodes> StartTwoNodes(const DeliveryOptions& options,
                                       const TwoNodesOptions& of_chunks);

struct Delivered {
  double gbps = 0;       // GB/s of KV in the engine's dtype
  double wire_gbps = 0;  // GB/s of encoded bytes between the nodes
};
// Retrieves the chunks into shared memory, at positions 0, 1, …, again and
// again for a second.
absl::StatusOr<Delivered> DeliverForASecond(
    Bed& bed, absl::Span<const rpc::StoreSpec> chunks,
    LevelSet accept = LevelSet::All());

}  // namespace kdn::bench

#endif  // KDN_BENCH_TWO_NODES_H_
