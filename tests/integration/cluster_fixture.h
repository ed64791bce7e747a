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

// A cluster of real processes in a new directory, and an engine that stores and
// gets random KV. A test that fails prints the nodes' logs.
class ClusterTest : public testing::Test {
 protected:
  explicit ClusterTest(ModelSpec model = Model());
  ~ClusterTest() override;

  void Configure(const cli::LocalClusterOptions& options);
  void StartAll();
  void StopAll(int signal);

  // Closes the connection, if there is one, and connects to `node`.
  rpc::Knowledge& Connect(size_t node);
  // The file of a calibration of the model that keeps only the mean.
  static std::vector<std::byte> CalibrationFileOf(float mean, int created);
  rpc::Client& client() { return *client_; }
  // Throws when no node is connected, which ends the test.
  rpc::Knowledge& knowledge() {
    if (knowledge_ == nullptr) throw std::runtime_error("no node is connected");
    return *knowledge_;
  }

  struct Chunk {
    rpc::StoreSpec spec;
    ChunkRef ref;
    std::vector<std::byte> kv;
  };
  // Chunk number `i`, with tokens and KV that depend on `i` only.
  Chunk Make(int i) const;
  absl::StatusOr<StoreReceipt> Put(
      const Chunk& chunk, Durability durability = Durability::kReplicated);
  // Retrieves the chunk into *kv. Returns its outcome.
  ChunkOutcome Get(const Chunk& chunk, std::vector<std::byte>* kv,
                   absl::Duration timeout = absl::Seconds(20));
  // Expects that the chunks 0 to chunks - 1 are delivered as they were stored.
  void ExpectAllHit(int chunks);
  NodeStatus StatusOf(size_t node);

  static ModelSpec Model();

  const ModelSpec model_;  // of the engine
  std::string directory_;
  std::unique_ptr<cli::ClusterProcess> cluster_;
  std::unique_ptr<rpc::Client> client_;
  std::unique_ptr<rpc::Knowledge> knowledge_;
};

}  // namespace kdn::integration

#endif  // KDN_TESTS_INTEGRATION_CLUSTER_FIXTURE_H_
