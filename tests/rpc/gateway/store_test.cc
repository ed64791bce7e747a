#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rpc/client/kv_copy.h"
#include "tests/rpc/gateway/fixture.h"

namespace kdn::rpc {
namespace {

class StoreTest : public GatewayFixture {};

// A copy of the chunk's KV with these strides.
std::vector<std::byte> CopyOf(const TestChunk& chunk, const KvStrides& strides,
                              size_t bytes) {
  std::vector<std::byte> memory(bytes);
  const MutableKvView view(memory.data(), chunk.shape, strides);
  for (int layer = 0; layer < chunk.shape.layers; ++layer) {
    UnpackLayer(chunk.view().Layer(layer).base(), DenseLayout::kTokenMajor,
                view.Layer(layer));
  }
  return memory;
}

TEST_F(StoreTest, EveryLayoutInlineAndShared) {
  int seed = 0;
  for (const std::string& address : {tcp_address(), unix_address()}) {
    auto knowledge = OpenOn(address);
    std::unique_ptr<Region> region;
    if (address == unix_address()) region = *client_->OpenMemory(1 << 16);
    for (int layout = 0; layout < 3; ++layout) {
      const TestChunk chunk = MakeChunk(ns_, model_, 50 * ++seed);
      KvStrides strides = layout == 0 ? KvStrides::TokenMajor(chunk.shape)
                                      : KvStrides::HeadMajor(chunk.shape);
      if (layout == 2) {
        strides.head += 2;
        strides.part += 9;
        strides.layer += 40;
      }
      std::vector<std::byte> memory = CopyOf(chunk, strides, 1 << 15);
      const std::byte* base = memory.data();
      if (region != nullptr) {
        std::memcpy(region->data() + 128, memory.data(), memory.size());
        base = region->data() + 128;
      }
      auto receipt =
          knowledge->Store(chunk.spec, KvView(base, chunk.shape, strides));
      ASSERT_TRUE(receipt.ok()) << receipt.status();
      EXPECT_TRUE(HoldsIt(*knowledge, chunk)) << address << " " << layout;
    }
  }
}

TEST_F(StoreTest, LayerByLayerWithEveryField) {
  auto knowledge = OpenOn(tcp_address());
  TestChunk chunk = MakeChunk(ns_, model_, 1);
  chunk.spec.levels = LevelSet::All();
  chunk.spec.durability = Durability::kDurable;
  chunk.spec.ttl = absl::Seconds(90);
  chunk.spec.positions = {9, 8, 7, 100, 2000};
  auto stream = knowledge->BeginStore(chunk.spec);
  ASSERT_TRUE(stream.ok()) << stream.status();
  for (int layer = 0; layer < model_.num_layers; ++layer) {
    ASSERT_TRUE((*stream)->PutLayer(chunk.view().Layer(layer)).ok());
  }
  ASSERT_TRUE((*stream)->Commit().ok());
  EXPECT_TRUE(HoldsIt(*knowledge, chunk));
  const delivery::StoreRequest request = node_.last_store();
  EXPECT_EQ(request.positions, chunk.spec.positions);
  EXPECT_EQ(request.levels, LevelSet::All());
  EXPECT_EQ(request.durability, Durability::kDurable);
  EXPECT_EQ(request.ttl, absl::Seconds(90));
  EXPECT_EQ(request.identity, chunk.spec.identity);
}

TEST_F(StoreTest, AChunkBehindAnotherSaysItsDepth) {
  auto knowledge = OpenOn(tcp_address());
  TestChunk chunk = MakeChunk(ns_, model_, 3);
  chunk.spec.identity.condition = MakeChunk(ns_, model_, 4).ref.key;
  chunk.spec.depth = 7;
  const auto receipt = knowledge->Store(chunk.spec, chunk.view());
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  EXPECT_EQ(node_.last_store().depth, 7u);
}

TEST_F(StoreTest, TheNodeGetsFourLayersAtATime) {
  OpenOn(tcp_address());
  ModelSpec model = model_;
  model.num_layers = 7;
  auto knowledge = client_->Open(ns_, model);
  ASSERT_TRUE(knowledge.ok()) << knowledge.status();
  const TestChunk chunk = MakeChunk(ns_, model, 9);
  auto stream = (*knowledge)->BeginStore(chunk.spec);
  ASSERT_TRUE(stream.ok()) << stream.status();
  node_.BeSilent();
  for (int layer = 0; layer < model.num_layers; ++layer) {
    ASSERT_TRUE((*stream)->PutLayer(chunk.view().Layer(layer)).ok());
  }
  EXPECT_TRUE(Eventually(
      [&] { return client_->Ping().ok() && node_.layers_waiting() == 4; }));
  // Whatever was sent has been read by the time a later call is answered.
  EXPECT_TRUE(client_->Ping().ok());
  EXPECT_EQ(node_.layers_waiting(), 4);
  node_.Speak();
  ASSERT_TRUE((*stream)->Commit().ok());
  EXPECT_TRUE(HoldsIt(**knowledge, chunk));
}

TEST_F(StoreTest, ALevelKeepsTheLevelsThatItRefines) {
  auto knowledge = OpenOn(tcp_address());
  const LevelSet base = LevelSet::Of(Level::kBase);
  const LevelSet base1 = base.With(Level::kBase1);
  const std::vector<std::pair<Level, LevelSet>> kept = {
      {Level::kLossless, LevelSet::Of(Level::kLossless)},
      {Level::kInt8, LevelSet::Of(Level::kInt8)},
      {Level::kBase, base},
      {Level::kBase1, base1},
      {Level::kBase2, base1.With(Level::kBase2)}};
  int seed = 0;
  for (const auto& [level, levels] : kept) {
    TestChunk chunk = MakeChunk(ns_, model_, 50 * ++seed);
    chunk.spec.levels = LevelSet::Of(level);
    ASSERT_TRUE(knowledge->Store(chunk.spec, chunk.view()).ok());
    EXPECT_EQ(node_.last_store().levels, levels) << Name(level);
    const auto found = knowledge->Lookup({&chunk.ref, 1});
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->front().levels, levels) << Name(level);
  }
}

TEST_F(StoreTest, AnUncommittedStoreIsNeverVisibleAndReturnsItsBudget) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 3);
  {
    auto stream = knowledge->BeginStore(chunk.spec);
    ASSERT_TRUE(stream.ok());
    ASSERT_TRUE((*stream)->PutLayer(chunk.view().Layer(0)).ok());
    EXPECT_GT(gateway_->usage().store_bytes, 0u);
    EXPECT_TRUE(absl::IsInvalidArgument((*stream)->Commit().status()))
        << "layers are missing";
  }
  EXPECT_FALSE(knowledge->Lookup({&chunk.ref, 1})->front().hit);
  EXPECT_TRUE(Eventually([&] {
    // A call runs this thread's loop, which drops the stream.
    return client_->Ping().ok() && gateway_->usage().store_bytes == 0;
  }));
}

TEST_F(StoreTest, AStoreThatIsNeverCommittedHoldsNothingAfterItsDeadline) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 4);
  auto stream = knowledge->BeginStore(chunk.spec, absl::Milliseconds(80));
  ASSERT_TRUE(stream.ok()) << stream.status();
  ASSERT_TRUE((*stream)->PutLayer(chunk.view().Layer(0)).ok());
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().store_bytes == 0; }))
      << "though the client keeps the stream";
  EXPECT_TRUE(client_->Ping().ok());
}

TEST_F(StoreTest, AnEngineThatGivesUpCancelsTheBeginningOfItsStore) {
  auto knowledge = OpenOn(tcp_address());
  node_.BeSilent();
  const TestChunk chunk = MakeChunk(ns_, model_, 1);
  EXPECT_FALSE(knowledge->BeginStore(chunk.spec, absl::Milliseconds(80)).ok());
  const delivery::StoreRequest request = node_.last_store();
  EXPECT_TRUE(Eventually([&] { return request.cancellation->cancelled(); }));
  node_.Speak();
}

TEST_F(StoreTest, ManyInFlight) {
  auto knowledge = OpenOn(tcp_address());
  std::vector<TestChunk> chunks;
  for (int i = 0; i < 40; ++i) chunks.push_back(MakeChunk(ns_, model_, 11 * i));
  std::vector<std::unique_ptr<PendingStore>> pending;
  for (const TestChunk& chunk : chunks) {
    pending.push_back(knowledge->StoreAsync(chunk.spec, chunk.view()));
  }
  for (auto& store : pending) EXPECT_TRUE(store->Await().ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(pending[0]->Await().status()));
  for (const TestChunk& chunk : chunks) EXPECT_TRUE(HoldsIt(*knowledge, chunk));
}

TEST_F(StoreTest, StoresInFlightAreBounded) {
  Gateway::Options options;
  options.session_stores_max = 2;
  StartGateway(options);
  auto knowledge = OpenOn(tcp_address());
  std::vector<std::unique_ptr<StoreStream>> streams;
  for (int i = 0; i < 2; ++i) {
    auto stream = knowledge->BeginStore(MakeChunk(ns_, model_, i).spec);
    ASSERT_TRUE(stream.ok()) << stream.status();
    streams.push_back(*std::move(stream));
  }
  auto third = knowledge->BeginStore(MakeChunk(ns_, model_, 7).spec);
  EXPECT_TRUE(absl::IsResourceExhausted(third.status())) << third.status();
  streams.clear();
  EXPECT_TRUE(Eventually([&] {
    return knowledge->BeginStore(MakeChunk(ns_, model_, 7).spec).ok();
  }));
}

TEST_F(StoreTest, ARefusalOfTheNodeReachesTheClient) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 5);
  node_.set_begin_store(absl::ResourceExhaustedError("memory tier is full"));
  EXPECT_TRUE(absl::IsResourceExhausted(
      knowledge->Store(chunk.spec, chunk.view()).status()));
}

TEST_F(StoreTest, WrongShapesPositionsAndRegionsAreRefused) {
  auto knowledge = OpenOn(unix_address());
  TestChunk chunk = MakeChunk(ns_, model_, 6);
  KvShape wrong = chunk.shape;
  wrong.kv_heads = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(
      knowledge
          ->Store(chunk.spec, KvView(chunk.bytes.data(), wrong,
                                     KvStrides::TokenMajor(wrong)))
          .status()));
  auto stream = knowledge->BeginStore(chunk.spec);
  ASSERT_TRUE(stream.ok());
  EXPECT_TRUE(absl::IsInvalidArgument((*stream)->PutLayer(chunk.view())))
      << "more than one layer";
  StoreSpec spec = chunk.spec;
  spec.positions.pop_back();
  EXPECT_TRUE(
      absl::IsInvalidArgument(knowledge->Store(spec, chunk.view()).status()));
  spec = chunk.spec;
  spec.positions[2] = -3;
  EXPECT_TRUE(
      absl::IsInvalidArgument(knowledge->Store(spec, chunk.view()).status()));
  spec = chunk.spec;
  spec.identity.fingerprint = ModelFingerprint();
  EXPECT_TRUE(
      absl::IsInvalidArgument(knowledge->Store(spec, chunk.view()).status()));
  spec = chunk.spec;
  spec.depth = 1;  // of a standalone chunk
  EXPECT_TRUE(
      absl::IsInvalidArgument(knowledge->Store(spec, chunk.view()).status()));
  spec.identity.condition = chunk.ref.key;
  spec.depth = 0;  // of a chunk behind another
  EXPECT_TRUE(
      absl::IsInvalidArgument(knowledge->Store(spec, chunk.view()).status()));
  auto region = client_->OpenMemory(1 << 12);
  ASSERT_TRUE(region.ok());
  auto shared =
      knowledge->BeginStore(chunk.spec, kDefaultTimeout, region->get());
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_TRUE(
      absl::IsInvalidArgument((*shared)->PutLayer(chunk.view().Layer(0))))
      << "outside the region";
}

TEST_F(StoreTest, DeadlineCoversTheWholeStore) {
  auto knowledge = OpenOn(tcp_address());
  const TestChunk chunk = MakeChunk(ns_, model_, 8);
  auto stream = knowledge->BeginStore(chunk.spec, absl::Milliseconds(80));
  ASSERT_TRUE(stream.ok());
  node_.BeSilent();
  absl::Status status;
  for (int layer = 0; layer < model_.num_layers; ++layer) {
    status.Update((*stream)->PutLayer(chunk.view().Layer(layer)));
  }
  status.Update((*stream)->Commit().status());
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  node_.Speak();
}

}  // namespace
}  // namespace kdn::rpc
