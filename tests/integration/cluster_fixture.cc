#include "tests/integration/cluster_fixture.h"

#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <numeric>
#include <random>
#include <utility>

#include "codec/calibration/calibration_format.h"

namespace kdn::integration {
namespace {

constexpr absl::Duration kReady = absl::Seconds(60);

}  // namespace

ClusterTest::ClusterTest(ModelSpec model)
    : model_(std::move(model)), directory_("/tmp/kdn-test-XXXXXX") {
  EXPECT_NE(mkdtemp(directory_.data()), nullptr);
}

ClusterTest::~ClusterTest() {
  knowledge_.reset();
  client_.reset();
  if (HasFailure() && cluster_ != nullptr) {
    for (size_t i = 0; i < cluster_->config().nodes.size(); ++i) {
      std::printf("--- %s\n%s\n", cluster_->config().nodes[i].id.name().c_str(),
                  cluster_->LogTail(i).c_str());
    }
  }
  cluster_.reset();
  std::filesystem::remove_all(directory_);
}

ModelSpec ClusterTest::Model() {
  ModelSpec spec;
  spec.name = "integration";
  spec.num_layers = 3;
  spec.num_kv_heads = 2;
  spec.head_dim = 32;
  spec.rope.rotary_dim = 32;
  spec.weights_digest = "w";
  return spec;
}

void ClusterTest::Configure(const cli::LocalClusterOptions& options) {
  const auto file = cli::WriteLocalConfig(directory_, options);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto config = cli::LoadClusterConfig(*file);
  ASSERT_TRUE(config.ok()) << config.status();
  cluster_ = std::make_unique<cli::ClusterProcess>(
      KDN_BINARY_DIR "/bin/kdn", *file, *config, directory_ + "/logs");
}

void ClusterTest::StartAll() {
  ASSERT_TRUE(cluster_->StartAll().ok());
  const absl::Status ready = cluster_->WaitAllReady(kReady);
  ASSERT_TRUE(ready.ok()) << ready;
  Connect(0);
}

void ClusterTest::StopAll(int signal) {
  knowledge_.reset();
  client_.reset();
  for (size_t i = 0; i < cluster_->config().nodes.size(); ++i) {
    cluster_->Kill(i, signal);
  }
}

rpc::Knowledge& ClusterTest::Connect(size_t node) {
  knowledge_.reset();
  client_.reset();
  auto client = rpc::Client::Connect(cluster_->AddressOf(node));
  EXPECT_TRUE(client.ok()) << client.status();
  client_ = *std::move(client);
  auto knowledge = client_->Open(*Namespace::Parse("test"), model_);
  EXPECT_TRUE(knowledge.ok()) << knowledge.status();
  knowledge_ = *std::move(knowledge);
  return *knowledge_;
}

ClusterTest::Chunk ClusterTest::Make(int i) const {
  constexpr int kTokens = 64;
  Chunk chunk{rpc::StoreSpec{ChunkIdentity{FingerprintOf(model_),
                                           *Namespace::Parse("test"),
                                           ChunkKey(),
                                           std::string(kRawVariant),
                                           {}},
                             {}},
              {},
              {}};
  chunk.spec.identity.tokens.assign(kTokens, i);
  chunk.spec.positions.resize(kTokens);
  std::iota(chunk.spec.positions.begin(), chunk.spec.positions.end(), 0);
  const ChunkKey key = KeyOf(chunk.spec.identity, chunk.spec.depth);
  chunk.ref = ChunkRef{key};
  std::mt19937 random(static_cast<uint32_t>(i));
  chunk.kv.resize(ShapeOf(model_, kTokens).bytes());
  for (std::byte& byte : chunk.kv) byte = static_cast<std::byte>(random());
  return chunk;
}

absl::StatusOr<StoreReceipt> ClusterTest::Put(const Chunk& chunk,
                                              Durability durability) {
  rpc::StoreSpec spec = chunk.spec;
  spec.durability = durability;
  const KvShape shape = ShapeOf(model_, 64);
  return knowledge().Store(
      spec, KvView(chunk.kv.data(), shape, KvStrides::TokenMajor(shape)),
      absl::Seconds(20));
}

ChunkOutcome ClusterTest::Get(const Chunk& chunk, std::vector<std::byte>* kv,
                              absl::Duration timeout) {
  const KvShape shape = ShapeOf(model_, 64);
  kv->assign(shape.bytes(), std::byte{0});
  rpc::RetrieveSpec spec;
  spec.chunks.push_back(
      {chunk.ref, chunk.spec.positions,
       MutableKvView(kv->data(), shape, KvStrides::TokenMajor(shape))});
  const auto outcomes = knowledge().Retrieve(spec, nullptr, timeout);
  EXPECT_TRUE(outcomes.ok()) << outcomes.status();
  if (!outcomes.ok()) return {};
  return (*outcomes)[0];
}

void ClusterTest::ExpectAllHit(int chunks) {
  for (int i = 0; i < chunks; ++i) {
    const Chunk chunk = Make(i);
    std::vector<std::byte> kv;
    const ChunkOutcome outcome = Get(chunk, &kv);
    ASSERT_EQ(outcome.kind, OutcomeKind::kHit)
        << "chunk " << i << ": " << outcome.why;
    ASSERT_EQ(kv, chunk.kv) << "chunk " << i;
  }
}

NodeStatus ClusterTest::StatusOf(size_t node) {
  const auto nodes = client().Status(absl::Seconds(10));
  EXPECT_TRUE(nodes.ok()) << nodes.status();
  return nodes.ok() ? (*nodes)[node] : NodeStatus();
}

std::vector<std::byte> ClusterTest::CalibrationFileOf(float mean, int created) {
  const ModelSpec model = Model();
  codec::StoredCalibration stored;
  stored.model = FingerprintOf(model);
  stored.geometry = {model.num_layers, model.num_kv_heads, model.head_dim};
  const int dim = model.num_kv_heads * model.head_dim;
  codec::StoredTransform stream;
  stream.mean.assign(dim, mean);
  stream.synthesis.assign(static_cast<size_t>(dim) * dim, 0);
  for (int i = 0; i < dim; ++i) stream.synthesis[(dim + 1) * i] = 1;
  stream.classes[0].bands.resize(dim / codec::kBandComponents);
  stored.streams.assign(2 * static_cast<size_t>(model.num_layers), stream);
  stored.info.created = absl::FromUnixSeconds(created);
  return codec::WriteCalibration(stored);
}

}  // namespace kdn::integration
