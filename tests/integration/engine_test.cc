// Engines that disconnect, or that ask a real cluster for something invalid.
#include <gtest/gtest.h>

#include <algorithm>

#include "kv/clock.h"
#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

class EngineTest : public ClusterTest {
 protected:
  // The memory in use in a node's partitions, with objects that are being
  // built.
  uint64_t MemoryOf(size_t node) {
    return StatusOf(node).metrics["memory_bytes"];
  }
  // A chunk that no node holds and that `node`, as its owner, would build in
  // its own partition.
  Chunk FreshAt(size_t node) {
    const NodeId& id = cluster_->config().nodes[node].id;
    for (int i = 2;; ++i) {
      const Chunk chunk = Make(i);
      const auto receipt = Put(chunk);
      EXPECT_TRUE(receipt.ok()) << receipt.status();
      if (!receipt.ok()) return chunk;
      const bool here =
          std::find(receipt->holders.begin(), receipt->holders.end(), id) !=
          receipt->holders.end();
      if (!here) continue;
      const auto removed = knowledge().Remove({chunk.ref});
      EXPECT_TRUE(removed.ok() && (*removed)[0].ok());
      return chunk;
    }
  }
  absl::StatusCode Refusal(const rpc::RetrieveSpec& spec) {
    const auto outcomes = knowledge().Retrieve(spec);
    if (!outcomes.ok()) return outcomes.status().code();
    return (*outcomes)[0].kind == OutcomeKind::kFailed
               ? (*outcomes)[0].why.code()
               : absl::StatusCode::kOk;
  }
};

TEST_F(EngineTest, AnEngineThatDisconnectsMidStreamLeavesNothingBehind) {
  Configure({});
  StartAll();
  ASSERT_TRUE(Put(Make(1)).ok());
  const Chunk chunk = FreshAt(0);
  const uint64_t before = MemoryOf(0);
  const KvShape shape = ShapeOf(Model(), 64);
  const KvView kv(chunk.kv.data(), shape, KvStrides::TokenMajor(shape));
  {
    auto stream = knowledge().BeginStore(chunk.spec);
    ASSERT_TRUE(stream.ok()) << stream.status();
    ASSERT_TRUE((*stream)->PutLayer(kv.Layer(0)).ok());
    EXPECT_GT(MemoryOf(0), before) << "the object is being built there";
    knowledge_.reset();
    client_.reset();
  }
  Connect(0);
  const std::vector<ChunkRef> refs = {chunk.ref};
  const auto found = knowledge().Lookup(refs);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_FALSE((*found)[0].hit) << "an object is visible only once committed";
  const absl::Time deadline = SteadyNow() + absl::Seconds(20);
  while (MemoryOf(0) != before && SteadyNow() < deadline) {
  }
  EXPECT_EQ(MemoryOf(0), before);
  ASSERT_TRUE(Put(chunk).ok()) << "the key is free";
  std::vector<std::byte> delivered;
  EXPECT_EQ(Get(chunk, &delivered).kind, OutcomeKind::kHit);
  EXPECT_EQ(delivered, chunk.kv);
}

TEST_F(EngineTest, ARequestThatDoesNotFitIsRefusedAndChangesNothing) {
  Configure({});
  StartAll();
  const Chunk chunk = Make(1);
  ASSERT_TRUE(Put(chunk).ok());
  const KvShape shape = ShapeOf(Model(), 64);
  std::vector<std::byte> kv(shape.bytes());
  const auto ask = [&](std::vector<int32_t> positions, const KvShape& wanted) {
    rpc::RetrieveSpec spec;
    spec.chunks.push_back(
        {chunk.ref, std::move(positions),
         MutableKvView(kv.data(), wanted, KvStrides::TokenMajor(wanted))});
    return Refusal(spec);
  };
  const std::vector<int32_t> right = chunk.spec.positions;
  std::vector<int32_t> negative = right;
  negative[3] = -1;
  EXPECT_EQ(ask(negative, shape), absl::StatusCode::kInvalidArgument);
  std::vector<int32_t> few(right.begin(), right.end() - 1);
  EXPECT_EQ(ask(few, shape), absl::StatusCode::kInvalidArgument);
  KvShape wrong = shape;
  wrong.head_dim /= 2;
  EXPECT_EQ(ask(right, wrong), absl::StatusCode::kInvalidArgument);
  wrong = shape;
  wrong.kv_heads = 1;
  EXPECT_EQ(ask(right, wrong), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ask(right, shape), absl::StatusCode::kOk);
  EXPECT_EQ(kv, chunk.kv);

  rpc::StoreSpec spec = Make(2).spec;
  spec.positions[0] = -7;
  const auto receipt = knowledge().Store(
      spec, KvView(chunk.kv.data(), shape, KvStrides::TokenMajor(shape)));
  EXPECT_TRUE(absl::IsInvalidArgument(receipt.status())) << receipt.status();
  std::vector<std::byte> none;
  EXPECT_EQ(Get(Make(2), &none).kind, OutcomeKind::kMiss);
}

}  // namespace
}  // namespace kdn::integration
