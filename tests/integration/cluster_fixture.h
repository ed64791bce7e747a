#ifndef KDN_TESTS_INTEGRATION_CLUSTER_FIXTURE_H_
#define KDN_TESTS_INTEGRATION_CLUSTER_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cli/cluster_process.h"
#include "rpc/client/client.h"

namespace kdn::integration {

// A cluster of real processes in a directory of its own, and an engine of
// random KV in front of it. Logs are printed when a test fails.
class ClusterTest : public testing::Test {
 protected:
  explicit ClusterTest(ModelSpec model = Model());
  ~ClusterTest() override;

  void Configure(const cli::LocalClusterOptions& options);
  void StartAll();
  void StopAll(int signal);

  // Clients of `node`; made anew when asked.
  rpc::Knowledge& Connect(size_t node);
  rpc::Client& client() { return *client_; }
  // Throws when no node could be reached: the test ends there.
  rpc::Knowledge& knowledge() {
    if (knowledge_ == nullptr) throw std::runtime_error("no node is connected");
    return *knowledge_;
  }

  struct Chunk {
    rpc::StoreSpec spec;
    ChunkRef ref;
    std::vector<std::byte> kv;
  };
  // Chunk number `i`: tokens and KV follow from i.
  Chunk Make(int i) const;
  absl::StatusOr<StoreReceipt> Put(
      const Chunk& chunk, Durability durability = Durability::kReplicated);
  // What came of it; on a hit, *kv is what was delivered.
  ChunkOutcome Get(const Chunk& chunk, std::vector<std::byte>* kv,
                   absl::Duration timeout = absl::Seconds(20));
  // Every chunk is delivered as it was stored.
  void ExpectAllHit(int chunks);
  rpc::NodeStatus StatusOf(size_t node);

  static ModelSpec Model();

  const ModelSpec model_;  // that the engine runs
  std::string directory_;
  std::unique_ptr<cli::ClusterProcess> cluster_;
  std::unique_ptr<rpc::Client> client_;
  std::unique_ptr<rpc::Knowledge> knowledge_;
};

}  // namespace kdn::integration

#endif  // KDN_TESTS_INTEGRATION_CLUSTER_FIXTURE_H_
