// The promises of a cluster, without faults and while nodes come and go.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "kv/clock.h"
#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

TEST_F(ClusterTest, EveryNodeServesWhatAnyNodeStored) {
  Configure({});
  StartAll();
  std::set<std::string> first_holders;
  for (int i = 0; i < 20; ++i) {
    const auto receipt = Put(Make(i));
    ASSERT_TRUE(receipt.ok()) << receipt.status();
    EXPECT_EQ(receipt->holders.size(), 2u);
    first_holders.insert(receipt->holders[0].name());
  }
  EXPECT_EQ(first_holders.size(), 3u) << "every node is a first owner";
  for (size_t node = 0; node < 3; ++node) {
    Connect(node);
    ExpectAllHit(20);
  }
  std::vector<std::byte> kv;
  EXPECT_EQ(Get(Make(999), &kv).kind, OutcomeKind::kMiss);
}

TEST_F(ClusterTest, AStoreIsIdempotent) {
  Configure({});
  StartAll();
  const auto first = Put(Make(1));
  const auto second = Put(Make(1));
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_FALSE(first->existed);
  EXPECT_TRUE(second->existed);
  EXPECT_EQ(first->version, second->version);
}

TEST_F(ClusterTest, TenThousandLookupsInOneCall) {
  Configure({});
  StartAll();
  ASSERT_TRUE(Put(Make(1)).ok());
  const ChunkRef stored = Make(1).ref;
  std::vector<ChunkRef> refs(10000, stored);
  for (size_t i = 1; i < refs.size(); ++i) {
    DigestBuilder name("lookup");
    refs[i].key = ChunkKey(name.Add(static_cast<uint64_t>(i)).Finish());
  }
  const auto results = knowledge().Lookup(refs, absl::Seconds(20));
  ASSERT_TRUE(results.ok()) << results.status();
  ASSERT_EQ(results->size(), 10000u);
  EXPECT_TRUE((*results)[0].hit);
  for (size_t i = 1; i < refs.size(); ++i) ASSERT_FALSE((*results)[i].hit);
}

TEST_F(ClusterTest, CountersConserve) {
  Configure({});
  StartAll();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Put(Make(i)).ok());
  ExpectAllHit(10);
  std::vector<std::byte> kv;
  for (int i = 100; i < 105; ++i) Get(Make(i), &kv);
  const auto nodes = client().Status(absl::Seconds(10));
  ASSERT_TRUE(nodes.ok());
  uint64_t objects = 0;
  uint64_t peer_bytes_in = 0;
  uint64_t peer_bytes_out = 0;
  for (const NodeStatus& node : *nodes) {
    peer_bytes_in += node.metrics["peer_bytes_in"];
    peer_bytes_out += node.metrics["peer_bytes_out"];
    EXPECT_EQ(node.metrics["lookups"],
              node.metrics["hits_memory"] + node.metrics["hits_disk"] +
                  node.metrics["misses"] + node.metrics["failures"])
        << node.id.name();
    objects += node.metrics["objects"];
  }
  EXPECT_EQ(objects, 20u) << "ten chunks, two copies each";
  EXPECT_EQ(peer_bytes_in, peer_bytes_out);
  EXPECT_GT(peer_bytes_in, 0u);
  const NodeStatus& gateway = (*nodes)[0];
  EXPECT_EQ(gateway.metrics["chunks_hit"], 10u);
  EXPECT_EQ(gateway.metrics["chunks_missed"], 5u);
  EXPECT_EQ(gateway.metrics["chunks_failed"], 0u);
  EXPECT_EQ(gateway.metrics["engine_bytes_in"],
            gateway.metrics["engine_bytes_out"])
      << "every byte stored was delivered once";
}

TEST_F(ClusterTest, ARestartKeepsWhatIsDurable) {
  Configure({});
  StartAll();
  for (int i = 0; i < 10; ++i) {
    const auto receipt = Put(Make(i), Durability::kDurable);
    ASSERT_TRUE(receipt.ok()) << receipt.status();
  }
  StopAll(SIGTERM);
  StartAll();
  ExpectAllHit(10);
}

TEST_F(ClusterTest, KillingEveryNodeKeepsWhatIsDurable) {
  Configure({});
  StartAll();
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(Put(Make(i), Durability::kDurable).ok());
  }
  StopAll(SIGKILL);
  StartAll();
  ExpectAllHit(10);
}

TEST_F(ClusterTest, OneNodeDiesAndNothingIsMissed) {
  Configure({});
  StartAll();
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(Put(Make(i)).ok());
  cluster_->Kill(1, SIGKILL);
  // Retrieves at once, before the other nodes notice the death, and again
  // after.
  ExpectAllHit(30);
  ASSERT_TRUE(cluster_->WaitReady(0, 2, absl::Seconds(20)).ok());
  ExpectAllHit(30);
  // Two nodes are enough for two copies.
  const auto receipt = Put(Make(31));
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  EXPECT_EQ(receipt->holders.size(), 2u);
  // The node starts again and becomes a member again.
  ASSERT_TRUE(cluster_->Start(1).ok());
  ASSERT_TRUE(cluster_->WaitAllReady(absl::Seconds(30)).ok());
  ExpectAllHit(30);
}

TEST_F(ClusterTest, AClusterWorksWithANodeMissingAtTheStart) {
  Configure({});
  ASSERT_TRUE(cluster_->Start(0).ok());
  ASSERT_TRUE(cluster_->Start(2).ok());
  ASSERT_TRUE(cluster_->WaitReady(0, 2, absl::Seconds(30)).ok());
  Connect(0);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Put(Make(i)).ok());
  ExpectAllHit(10);
  // The late node takes over its shards. Readers find the chunks that it does
  // not hold at the next owners.
  ASSERT_TRUE(cluster_->Start(1).ok());
  ASSERT_TRUE(cluster_->WaitAllReady(absl::Seconds(30)).ok());
  ExpectAllHit(10);
}

TEST_F(ClusterTest, AKilledClientLosesItsLeases) {
  Configure({});
  StartAll();
  ASSERT_TRUE(Put(Make(1)).ok());
  // The child must not inherit this thread's event loop.
  knowledge_.reset();
  client_.reset();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto client = rpc::Client::Connect(cluster_->AddressOf(0));
    if (!client.ok()) _exit(1);
    auto own = (*client)->Open(*Namespace::Parse("test"), Model());
    if (!own.ok()) _exit(2);
    const auto pinned = (*own)->Pin({Make(1).ref}, absl::Hours(1));
    if (!pinned.ok() || !(*pinned)[0].ok()) _exit(3);
    if (write(ends[1], "x", 1) != 1) _exit(4);
    pause();
    _exit(5);
  }
  char pinned = 0;
  close(ends[1]);
  ASSERT_EQ(read(ends[0], &pinned, 1), 1);
  Connect(0);
  const auto leases = [this] {
    uint64_t sum = 0;
    for (size_t i = 0; i < 3; ++i) sum += StatusOf(i).metrics["leases"];
    return sum;
  };
  EXPECT_EQ(leases(), 2u) << "on both copies";
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  const absl::Time deadline = SteadyNow() + absl::Seconds(20);
  while (leases() > 0 && SteadyNow() < deadline) {
  }
  EXPECT_EQ(leases(), 0u);
}

}  // namespace
}  // namespace kdn::integration
