#ifndef KDN_TESTS_RPC_GATEWAY_FIXTURE_H_
#define KDN_TESTS_RPC_GATEWAY_FIXTURE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "rpc/client/client.h"
#include "rpc/gateway/gateway.h"
#include "tests/rpc/fake_node.h"

namespace kdn::rpc {

inline constexpr uint64_t kSeed = 20240611;

// Waits until `condition` is true. False after 20 s, which a correct run never
// needs.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time limit = SteadyNow() + absl::Seconds(20);
  while (!condition()) {
    if (SteadyNow() > limit) return false;
    std::this_thread::yield();
  }
  return true;
}

inline ModelSpec TestModel() {
  ModelSpec model;
  model.name = "test";
  model.num_layers = 3;
  model.num_kv_heads = 2;
  model.head_dim = 8;
  model.rope.rotary_dim = 8;
  model.weights_digest = "w";
  model.tokenizer_digest = "t";
  return model;
}

// A chunk whose tokens begin with `seed`, and its KV: random numbers.
struct TestChunk {
  StoreSpec spec;
  ChunkRef ref;
  KvShape shape;
  std::vector<std::byte> bytes;

  KvView view() const {
    return KvView(bytes.data(), shape, KvStrides::TokenMajor(shape));
  }
};

inline TestChunk MakeChunk(const Namespace& ns, const ModelSpec& model,
                           int seed, int tokens = 5) {
  std::vector<int32_t> ids(tokens);
  std::iota(ids.begin(), ids.end(), seed);
  std::vector<int32_t> positions(tokens);
  std::iota(positions.begin(), positions.end(), 0);
  ChunkIdentity identity{FingerprintOf(model), ns, ChunkKey(),
                         std::string(kRawVariant), std::move(ids)};
  const ChunkKey key = KeyOf(identity, 0);
  TestChunk chunk{StoreSpec{.identity = std::move(identity),
                            .positions = std::move(positions)},
                  ChunkRef{key},
                  ShapeOf(model, tokens),
                  {}};
  std::mt19937_64 random(kSeed + static_cast<uint64_t>(seed));
  std::vector<float> values(chunk.shape.bytes() / SizeOf(model.dtype));
  for (float& value : values) {
    value = std::uniform_real_distribution<float>(-1, 1)(random);
  }
  chunk.bytes.resize(chunk.shape.bytes());
  StoreFloats(model.dtype, values.data(), values.size(), chunk.bytes.data());
  return chunk;
}

// A gateway over a fake node, on a free TCP port and a Unix socket.
class GatewayFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/kdn-rpc-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    StartGateway(Gateway::Options{});
  }
  void TearDown() override {
    client_ = nullptr;
    if (gateway_ != nullptr) {
      node_.Speak();
      EXPECT_TRUE(Eventually([&] { return AllIdle(); }));
      gateway_->Stop();
    }
    EXPECT_EQ(rmdir(directory_.c_str()), 0) << "something was left behind";
  }
  void StartGateway(Gateway::Options options) {
    if (gateway_ != nullptr) gateway_->Stop();
    options.unix_path = directory_ + "/engine.sock";
    meters_ = options.meters;
    auto gateway = Gateway::Start(options, &node_);
    ASSERT_TRUE(gateway.ok()) << gateway.status();
    gateway_ = *std::move(gateway);
  }
  std::string tcp_address() const {
    return absl::StrCat("127.0.0.1:", gateway_->tcp_port());
  }
  std::string unix_address() const {
    return absl::StrCat("unix:", directory_, "/engine.sock");
  }
  std::unique_ptr<Client> MakeClient(const std::string& address) {
    auto client = Client::Connect(address);
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }
  std::unique_ptr<Knowledge> OpenOn(const std::string& address) {
    client_ = MakeClient(address);
    auto knowledge = client_->Open(ns_, model_);
    EXPECT_TRUE(knowledge.ok()) << knowledge.status();
    return *std::move(knowledge);
  }
  bool AllIdle() const {
    const Gateway::Usage usage = gateway_->usage();
    return usage.sessions == 0 && usage.memory_bytes == 0 &&
           usage.scratch_bytes == 0 && usage.store_bytes == 0 &&
           usage.node_calls == 0 && node_.sessions_open() == 0 &&
           node_.pins() == 0;
  }

  const Namespace ns_ = *Namespace::Parse("tenant-a");
  const ModelSpec model_ = TestModel();
  std::string directory_;
  FakeNode node_;
  std::shared_ptr<Meters> meters_;  // of the gateway
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<Client> client_;
};

// Memory for a chunk's slice in some layout, and a view of it.
struct Landing {
  std::vector<std::byte> memory;
  MutableKvView view;
};

inline Landing MakeLanding(const KvShape& shape, const KvStrides& strides,
                           size_t bytes) {
  Landing landing{std::vector<std::byte>(bytes), {}};
  landing.view = MutableKvView(landing.memory.data(), shape, strides);
  return landing;
}

// True when `got` equals the slice of the chunk.
inline bool SameKv(const KvView& got, const TestChunk& chunk,
                   const KvSlice& slice) {
  const KvView all = chunk.view();
  for (int layer = 0; layer < slice.layers(); ++layer) {
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < slice.heads(); ++head) {
        for (int token = 0; token < chunk.shape.tokens; ++token) {
          if (std::memcmp(got.At(layer, part, head, token),
                          all.At(slice.layer_begin + layer, part,
                                 slice.head_begin + head, token),
                          chunk.shape.head_bytes()) != 0) {
            return false;
          }
        }
      }
    }
  }
  return true;
}

// Whether the node holds the chunk with its KV. Retrieves it inline.
inline bool HoldsIt(Knowledge& knowledge, const TestChunk& chunk) {
  Landing landing = MakeLanding(chunk.shape, KvStrides::TokenMajor(chunk.shape),
                                chunk.shape.bytes());
  auto outcomes = knowledge.Retrieve(
      {.chunks = {{chunk.ref, chunk.spec.positions, landing.view}}});
  return outcomes.ok() && (*outcomes)[0].kind == OutcomeKind::kHit &&
         SameKv(landing.view, chunk, WholeOf(knowledge.model()));
}

}  // namespace kdn::rpc

#endif  // KDN_TESTS_RPC_GATEWAY_FIXTURE_H_
