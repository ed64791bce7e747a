// Damaged and full disks, taken ports, silent peers: errors are typed, and no
// chunk is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kv/clock.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/rpc/faulty_proxy.h"

namespace kdn::integration {
namespace {

namespace fs = std::filesystem;

// Flips a byte in the middle of every record of a node's segments.
void DamageSegments(const std::string& data_dir) {
  for (const auto& entry : fs::directory_iterator(data_dir)) {
    if (entry.path().filename().string().rfind("segment-", 0) != 0) continue;
    std::fstream file(entry.path(),
                      std::ios::in | std::ios::out | std::ios::binary);
    const auto size = static_cast<std::streamoff>(fs::file_size(entry.path()));
    for (std::streamoff at = 4096 + 100; at < size; at += 4096) {
      file.seekg(at);
      const char byte = static_cast<char>(file.get() ^ 1);
      file.seekp(at);
      file.put(byte);
    }
  }
}

TEST_F(ClusterTest, ADamagedDiskIsReplacedByTheReplica) {
  Configure({});
  StartAll();
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(Put(Make(i), Durability::kDurable).ok());
  }
  StopAll(SIGTERM);
  DamageSegments(directory_ + "/n2");
  StartAll();
  ExpectAllHit(12);
  const NodeStatus damaged = StatusOf(1);
  EXPECT_GT(damaged.metrics["damaged"], 0u) << "damaged copies are counted";
}

TEST_F(ClusterTest, AFullDiskEvictsAndGoesOn) {
  if (geteuid() != 0) GTEST_SKIP() << "mounting a small tmpfs needs root";
  cli::LocalClusterOptions options;
  options.nodes = 1;
  options.replicas = 1;
  options.memory_bytes = 8u << 20;
  options.disk_bytes = 1ull << 30;  // more than the file system has
  const std::string data = directory_ + "/n1";
  fs::create_directories(data);
  if (mount("tmpfs", data.c_str(), "tmpfs", 0, "size=24m") != 0) {
    GTEST_SKIP() << "this sandbox does not mount tmpfs";
  }
  Configure(options);
  StartAll();
  int stored = 0;
  for (int i = 0; i < 600; ++i) {
    const auto receipt = Put(Make(i));
    if (receipt.ok()) {
      ++stored;
    } else {
      EXPECT_TRUE(absl::IsResourceExhausted(receipt.status()))
          << receipt.status();
    }
  }
  EXPECT_GT(stored, 500);
  std::vector<std::byte> kv;
  const Chunk last = Make(599);
  EXPECT_EQ(Get(last, &kv).kind, OutcomeKind::kHit);
  EXPECT_EQ(kv, last.kv);
  StopAll(SIGTERM);
  umount2(data.c_str(), MNT_DETACH);
}

TEST_F(ClusterTest, ATakenPortIsNamed) {
  cli::LocalClusterOptions options;
  options.disk_bytes = 0;  // else the node fails at the taken data_dir first
  Configure(options);
  StartAll();
  // The same configuration again: the running n1 has taken every port.
  cli::ClusterProcess again(KDN_BINARY_DIR "/bin/kdn",
                            directory_ + "/cluster.yaml", cluster_->config(),
                            directory_ + "/again");
  ASSERT_TRUE(again.Start(0).ok());
  int status = 0;
  const absl::Time deadline = SteadyNow() + absl::Seconds(20);
  while (again.Reap(&status) < 0 && SteadyNow() < deadline) {
  }
  EXPECT_FALSE(again.running(0));
  EXPECT_THAT(again.LogTail(0), testing::HasSubstr(absl::StrCat(
                                    cluster_->config().nodes[0].control_port)));
  EXPECT_THAT(again.LogTail(0), testing::HasSubstr("Address already in use"));
}

TEST_F(ClusterTest, ASilentPeerCostsTimeButNoAnswer) {
  Configure({});
  StartAll();
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(Put(Make(i)).ok());
  cluster_->Signal(1, SIGSTOP);
  for (int i = 0; i < 12; ++i) {
    std::vector<std::byte> kv;
    const absl::Time begin = SteadyNow();
    const ChunkOutcome outcome = Get(Make(i), &kv, absl::Seconds(4));
    EXPECT_LT(SteadyNow() - begin, absl::Seconds(5));
    EXPECT_EQ(outcome.kind, OutcomeKind::kHit) << outcome.why;
  }
  cluster_->Signal(1, SIGCONT);
}

// n1 reaches n2's bulk port through a proxy that flips one bit per connection.
TEST_F(ClusterTest, ABitFlippedOnTheWireIsReplacedByTheReplica) {
  Configure({});
  const uint16_t port = cluster_->config().nodes[1].bulk_port;
  const rpc::FaultyProxy proxy(port, {.flip_bit_at = 30000});
  std::stringstream text;
  text << std::ifstream(directory_ + "/cluster.yaml").rdbuf();
  std::ofstream(directory_ + "/proxied.yaml") << absl::StrReplaceAll(
      text.str(), {{absl::StrCat("bulk_port: ", port),
                    absl::StrCat("bulk_port: ", proxy.port())}});
  cli::ClusterProcess first(KDN_BINARY_DIR "/bin/kdn",
                            directory_ + "/proxied.yaml", cluster_->config(),
                            directory_ + "/logs");
  ASSERT_TRUE(first.Start(0).ok());
  ASSERT_TRUE(cluster_->Start(1).ok());
  ASSERT_TRUE(cluster_->Start(2).ok());
  ASSERT_TRUE(first.WaitReady(0, 3, absl::Seconds(60)).ok());
  Connect(0);
  int fetched_twice = 0;
  for (int i = 0; i < 24; ++i) {
    const Chunk chunk = Make(i);
    const auto receipt = Put(chunk);
    ASSERT_TRUE(receipt.ok()) << receipt.status();
    std::vector<std::byte> kv;
    const ChunkOutcome outcome = Get(chunk, &kv);
    ASSERT_EQ(outcome.kind, OutcomeKind::kHit) << outcome.why;
    ASSERT_EQ(kv, chunk.kv) << "chunk " << i;
    fetched_twice += outcome.wire_bytes > kv.size() ? 1 : 0;
  }
  EXPECT_GT(fetched_twice, 0) << "the proxy flipped nothing";
}

TEST_F(ClusterTest, AnotherModelOfTheSameGeometryFindsNothing) {
  Configure({});
  StartAll();
  ASSERT_TRUE(Put(Make(1)).ok());
  ModelSpec other = Model();
  other.weights_digest = "retrained";
  auto theirs = client().Open(*Namespace::Parse("test"), other);
  ASSERT_TRUE(theirs.ok());
  const Chunk chunk = Make(1);
  // A store with the fingerprint of another model is refused.
  const KvShape shape = ShapeOf(other, 64);
  const auto receipt = (*theirs)->Store(
      chunk.spec, KvView(chunk.kv.data(), shape, KvStrides::TokenMajor(shape)));
  EXPECT_FALSE(receipt.ok());
  // A retrieve by key never delivers another model's KV.
  std::vector<std::byte> kv(shape.bytes());
  rpc::RetrieveSpec spec;
  spec.chunks.push_back(
      {chunk.ref, chunk.spec.positions,
       MutableKvView(kv.data(), shape, KvStrides::TokenMajor(shape))});
  const auto outcomes = (*theirs)->Retrieve(spec);
  if (outcomes.ok()) {
    EXPECT_NE((*outcomes)[0].kind, OutcomeKind::kHit);
  }
}

}  // namespace
}  // namespace kdn::integration
