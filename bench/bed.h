#ifndef KDN_BENCH_BED_H_
#define KDN_BENCH_BED_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/delivery_bench.h"
#include "cli/cluster_process.h"
#include "cli/temp_directory.h"
#include "rpc/client/client.h"

// What the parts of the delivery benchmark stand on: two real nodes, an engine,
// and chunks to move.
namespace kdn::bench {

// The geometry of Llama-3.1-8B's KV: 32 MB a chunk of 256 tokens.
ModelSpec BenchModel();
size_t ChunkBytes();
// Chunk number `number`, of tokens of its own, standalone, at positions 0, 1, …
rpc::StoreSpec SpecOf(const rpc::Knowledge& knowledge, int number);
ChunkRef RefOf(const rpc::StoreSpec& spec);

double GbpsOf(uint64_t bytes, absl::Duration took);

// The same work done by the KDN and by the bare machine.
struct Rates {
  double ours = 0;   // GB/s, the median of all turns
  double raw = 0;    // GB/s, likewise
  double ratio = 0;  // the median of ours / raw within a turn
};
// Measures both in turns, so that a slow moment of the machine slows both.
absl::StatusOr<Rates> InTurns(absl::FunctionRef<absl::StatusOr<double>()> ours,
                              absl::FunctionRef<absl::StatusOr<double>()> raw);

// Two nodes, an engine connected to the first, and memory shared with it.
class Bed {
 public:
  static absl::StatusOr<std::unique_ptr<Bed>> Start(
      const DeliveryOptions& options, const cli::LocalClusterOptions& cluster,
      size_t region_bytes);

  rpc::Client& client() { return *client_; }
  rpc::Knowledge& knowledge() { return *knowledge_; }
  // A chunk's head-major KV at `offset` of the shared memory.
  MutableKvView ViewAt(size_t offset) const;

 private:
  // In the order of need: the first to go is what uses the rest.
  cli::TempDirectory directory_;
  std::unique_ptr<cli::ClusterProcess> cluster_;
  std::unique_ptr<rpc::Client> client_;
  std::unique_ptr<rpc::Knowledge> knowledge_;
  std::unique_ptr<rpc::Region> region_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_BED_H_
