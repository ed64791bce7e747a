// The promises of durability classes and removals, when nodes die and restart.
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

constexpr absl::Duration kReady = absl::Seconds(30);

class PromisesTest : public ClusterTest {
 protected:
  void Restart(std::initializer_list<size_t> nodes) {
    for (size_t node : nodes) ASSERT_TRUE(cluster_->Start(node).ok());
    ASSERT_TRUE(cluster_->WaitAllReady(kReady).ok());
  }
  void KillAndLeave(std::initializer_list<size_t> nodes, int alive) {
    for (size_t node : nodes) cluster_->Kill(node, SIGKILL);
    ASSERT_TRUE(cluster_->WaitReady(0, alive, kReady).ok());
  }
};

TEST_F(PromisesTest, AStoreThatLostIsDurableOnlyWithTheWinnersCopies) {
  constexpr int kChunks = 9;
  Configure({});
  StartAll();
  KillAndLeave({1, 2}, 1);
  for (int i = 0; i < kChunks; ++i) {
    const auto receipt = Put(Make(i));
    ASSERT_TRUE(absl::IsUnavailable(receipt.status())) << receipt.status();
  }
  Restart({1, 2});
  std::vector<Chunk> others;
  for (int i = 0; i < kChunks; ++i) {
    others.push_back(Make(i));
    for (std::byte& byte : others.back().kv) byte ^= std::byte{1};
    const auto receipt = Put(others.back(), Durability::kDurable);
    ASSERT_TRUE(receipt.ok()) << receipt.status();
    EXPECT_EQ(receipt->holders.size(), 2u) << "chunk " << i;
  }
  StopAll(SIGKILL);
  ASSERT_TRUE(cluster_->Start(1).ok());
  ASSERT_TRUE(cluster_->Start(2).ok());
  ASSERT_TRUE(cluster_->WaitReady(1, 2, kReady).ok());
  Connect(1);
  for (int i = 0; i < kChunks; ++i) {
    std::vector<std::byte> kv;
    const ChunkOutcome outcome = Get(others[i], &kv);
    EXPECT_EQ(outcome.kind, OutcomeKind::kHit)
        << "chunk " << i << ": " << outcome.why;
    EXPECT_TRUE(kv == others[i].kv || kv == Make(i).kv) << "chunk " << i;
  }
}

TEST_F(PromisesTest, ARemovalIsDoneWhenNoOwnerCanBringTheChunkBack) {
  Configure({});
  StartAll();
  const Chunk chunk = Make(1);
  ASSERT_TRUE(Put(chunk, Durability::kDurable).ok());
  KillAndLeave({1}, 2);
  auto removed = knowledge().Remove({chunk.ref}, absl::Seconds(10));
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_TRUE(absl::IsUnavailable((*removed)[0])) << (*removed)[0];
  Restart({1});
  removed = knowledge().Remove({chunk.ref}, absl::Seconds(10));
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_TRUE((*removed)[0].ok() || absl::IsNotFound((*removed)[0]))
      << (*removed)[0];
  StopAll(SIGKILL);
  StartAll();
  std::vector<std::byte> kv;
  EXPECT_EQ(Get(chunk, &kv).kind, OutcomeKind::kMiss);
}

TEST_F(PromisesTest, OneCallGetsMoreChunksFromDiskThanMayWaitForIt) {
  constexpr int kChunks = 3000;
  const KvShape shape = ShapeOf(Model(), 2);
  cli::LocalClusterOptions options;
  options.nodes = 1;
  Configure(options);
  StartAll();
  std::vector<ChunkRef> refs;
  rpc::StoreSpec spec = Make(0).spec;
  spec.positions = {0, 1};
  std::vector<std::byte> kv(shape.bytes() * kChunks);
  for (int i = 0; i < kChunks; ++i) {
    spec.identity.tokens = {i, 1};
    const ChunkKey key = KeyOf(spec.identity, spec.depth);
    refs.push_back(ChunkRef{key});
    const KvView view(kv.data(), shape, KvStrides::TokenMajor(shape));
    ASSERT_TRUE(knowledge().Store(spec, view, absl::Seconds(20)).ok());
  }
  StopAll(SIGTERM);
  StartAll();
  rpc::RetrieveSpec wanted;
  for (int i = 0; i < kChunks; ++i) {
    wanted.chunks.push_back({refs[i], spec.positions,
                             MutableKvView(kv.data() + i * shape.bytes(), shape,
                                           KvStrides::TokenMajor(shape))});
  }
  const auto outcomes =
      knowledge().Retrieve(wanted, nullptr, absl::Seconds(60));
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  for (const ChunkOutcome& outcome : *outcomes) {
    ASSERT_EQ(outcome.kind, OutcomeKind::kHit) << outcome.why;
  }
}

}  // namespace
}  // namespace kdn::integration
