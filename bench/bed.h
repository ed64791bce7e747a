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

// What the parts of the delivery benchmark share: two real nodes, an engine,
// chunks to move, and rates measured in turns.
namespace kdn::bench {

// A model with the KV geometry of Llama-3.1-8B: 32 MB per chunk of 256 tokens.
ModelSpec BenchModel();
size_t ChunkBytes();
// A standalone chunk at positions 0, 1, … Different numbers give different
// tokens and so different chunks.
rpc::StoreSpec SpecOf(const rpc::Knowledge& knowledge, int number);
ChunkRef RefOf(const rpc::StoreSpec& spec);

double GbpsOf(uint64_t bytes, absl::Duration took);

// The rate of the KDN next to the rate of the bare machine for the same work.
struct Rates {
  double ours = 0;   // GB/s of the KDN, the median of all turns
  double raw = 0;    // GB/s of the machine, the median of all turns
  double ratio = 0;  // the median over the turns of ours / raw
};
// Measures `ours` and `raw` in turns, so that a slow moment of the machine
// slows both.
absl::StatusOr<Rates> InTurns(absl::FunctionRef<absl::StatusOr<double>()> ours,
                              absl::FunctionRef<absl::StatusOr<double>()> raw);

// A cluster, an engine connected to its first node, and memory shared with that
// node, filled with random bits.
class Bed {
 public:
  static absl::StatusOr<std::unique_ptr<Bed>> Start(
      const DeliveryOptions& options, const cli::LocalClusterOptions& cluster,
      size_t region_bytes);

  rpc::Client& client() { return *client_; }
  rpc::Knowledge& knowledge() { return *knowledge_; }
  // A view of one chunk, head-major, at byte `offset` of the shared memory.
  MutableKvView ViewAt(size_t offset) const;

 private:
  // Each member uses the ones above, so they are destroyed from the last up.
  cli::TempDirectory directory_;
  std::unique_ptr<cli::ClusterProcess> cluster_;
  std::unique_ptr<rpc::Client> client_;
  std::unique_ptr<rpc::Knowledge> knowledge_;
  std::unique_ptr<rpc::Region> region_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_BED_H_
