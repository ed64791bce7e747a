// Nodes of one cluster exchange data, also while the cluster is upgraded. Nodes
// of different clusters do not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "kv/clock.h"
#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

using testing::HasSubstr;

std::string TextOf(const std::string& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// Upgrades the nodes one after the other, under reads and writes.
TEST_F(ClusterTest, NodesOfTheVersionBeforeWorkBesideNewNodes) {
  constexpr int kNodes = 3;
  Configure({.nodes = kNodes});
  for (size_t node = 0; node < kNodes; ++node) {
    cluster_->set_program(node, KDN_BINARY_DIR "/bin/kdn_previous");
  }
  StartAll();
  int chunks = 0;
  for (; chunks < 6; ++chunks) ASSERT_TRUE(Put(Make(chunks)).ok());
  for (size_t upgraded = 0; upgraded < kNodes; ++upgraded) {
    cluster_->Kill(upgraded, SIGTERM);
    cluster_->set_program(upgraded, KDN_BINARY_DIR "/bin/kdn");
    const size_t other = (upgraded + 1) % kNodes;
    Connect(other);
    for (int end = chunks + 3; chunks < end; ++chunks) {
      ASSERT_TRUE(Put(Make(chunks)).ok()) << "one node is away";
    }
    ExpectAllHit(chunks);
    ASSERT_TRUE(cluster_->Start(upgraded).ok());
    const absl::Status ready = cluster_->WaitAllReady(absl::Seconds(30));
    ASSERT_TRUE(ready.ok()) << ready;
    for (const size_t node : {upgraded, other}) {
      Connect(node);
      for (int end = chunks + 3; chunks < end; ++chunks) {
        const auto receipt = Put(Make(chunks));
        ASSERT_TRUE(receipt.ok()) << receipt.status();
        EXPECT_EQ(receipt->holders.size(), 2u);
      }
      ExpectAllHit(chunks);
    }
  }
}

// Two clusters that merged would store each other's chunks.
TEST_F(ClusterTest, TwoClustersThatShareAnAddressDoNotMerge) {
  Configure({.nodes = 2});
  StartAll();
  ASSERT_TRUE(Put(Make(1)).ok());
  // Node n1 of another cluster, whose n2 is at the address of ours.
  const std::string other = directory_ + "/other";
  std::filesystem::create_directories(other);
  const auto file =
      cli::WriteLocalConfig(other, {.name = "another", .nodes = 2});
  ASSERT_TRUE(file.ok()) << file.status();
  auto config = cli::LoadClusterConfig(*file);
  ASSERT_TRUE(config.ok()) << config.status();
  std::string text = TextOf(*file);
  const cli::NodeConfig& theirs = config->nodes[1];
  const cli::NodeConfig& ours = cluster_->config().nodes[1];
  for (const auto& [from, to] :
       {std::pair(theirs.control_port, ours.control_port),
        std::pair(theirs.bulk_port, ours.bulk_port)}) {
    const std::string port = std::to_string(from);
    const size_t at = text.find(port);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, port.size(), std::to_string(to));
  }
  std::ofstream(*file) << text;
  config = cli::LoadClusterConfig(*file);
  ASSERT_TRUE(config.ok()) << config.status();
  cli::ClusterProcess stranger(KDN_BINARY_DIR "/bin/kdn", *file, *config,
                               other + "/logs");
  ASSERT_TRUE(stranger.Start(0).ok());
  const absl::Status ready = stranger.WaitReady(0, 1, absl::Seconds(30));
  ASSERT_TRUE(ready.ok()) << ready;
  const std::string log = other + "/logs/n1.log";
  const absl::Time deadline = SteadyNow() + absl::Seconds(20);
  while (TextOf(log).find("two clusters") == std::string::npos &&
         SteadyNow() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_THAT(TextOf(log), HasSubstr("of cluster 'another'"));
  EXPECT_THAT(cluster_->LogTail(1), HasSubstr("of cluster 'another'"));
  // The other cluster does not find our chunk.
  auto client = rpc::Client::Connect(stranger.AddressOf(0));
  ASSERT_TRUE(client.ok()) << client.status();
  auto knowledge = (*client)->Open(*Namespace::Parse("test"), model_);
  ASSERT_TRUE(knowledge.ok()) << knowledge.status();
  const ChunkRef stored = Make(1).ref;
  const auto found = (*knowledge)->Lookup({&stored, 1});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_FALSE((*found)[0].hit);
  std::vector<std::byte> kv;
  EXPECT_EQ(Get(Make(1), &kv).kind, OutcomeKind::kHit);
}

}  // namespace
}  // namespace kdn::integration
