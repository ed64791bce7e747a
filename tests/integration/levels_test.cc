// Stores and retrieves the levels of chunks on a real cluster.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <random>

#include "cli/calibration_files.h"
#include "codec/calibration/calibration_format.h"
#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

constexpr Level kLadder[] = {Level::kBase, Level::kBase1, Level::kBase2};
constexpr int kTokens = 64;

class LevelsTest : public ClusterTest {
 protected:
  // Chunk number `i` with finite values, which every level can hold.
  Chunk MakeFinite(int i, LevelSet levels) const {
    Chunk chunk = Make(i);
    chunk.spec.levels = levels;
    std::mt19937 random(static_cast<uint32_t>(i));
    std::normal_distribution<float> normal;
    std::vector<float> values(chunk.kv.size() / 2);
    for (float& value : values) value = normal(random);
    StoreFloats(Model().dtype, values.data(), values.size(), chunk.kv.data());
    return chunk;
  }

  struct Got {
    ChunkOutcome outcome;
    std::vector<std::byte> kv;  // KV of the slice, token-major
  };
  Got GetAt(const Chunk& chunk, LevelSet accept,
            const KvSlice& slice = WholeOf(Model())) {
    const KvShape shape = ShapeOfSlice(slice);
    Got got;
    got.kv.assign(shape.bytes(), std::byte{0});
    rpc::RetrieveSpec spec;
    spec.slice = slice;
    spec.accept = accept;
    spec.chunks.push_back(
        {chunk.ref, chunk.spec.positions,
         MutableKvView(got.kv.data(), shape, KvStrides::TokenMajor(shape))});
    const auto outcomes =
        knowledge().Retrieve(spec, nullptr, absl::Seconds(20));
    EXPECT_TRUE(outcomes.ok()) << outcomes.status();
    if (outcomes.ok()) got.outcome = outcomes->front();
    return got;
  }
  static KvShape ShapeOfSlice(const KvSlice& slice) {
    KvShape shape = ShapeOf(Model(), kTokens);
    shape.layers = slice.layers();
    shape.kv_heads = slice.heads();
    return shape;
  }
  // Cuts `slice` out of the KV of a whole chunk.
  static std::vector<std::byte> Cut(const std::vector<std::byte>& whole,
                                    const KvSlice& slice) {
    const KvShape all = ShapeOf(Model(), kTokens);
    const KvShape shape = ShapeOfSlice(slice);
    std::vector<std::byte> cut(shape.bytes());
    const KvView from(whole.data(), all, KvStrides::TokenMajor(all));
    const MutableKvView to(cut.data(), shape, KvStrides::TokenMajor(shape));
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (const KvPart part : {KvPart::kK, KvPart::kV}) {
        for (int head = 0; head < shape.kv_heads; ++head) {
          for (int token = 0; token < kTokens; ++token) {
            std::memcpy(to.At(layer, part, head, token),
                        from.At(slice.layer_begin + layer, part,
                                slice.head_begin + head, token),
                        shape.head_bytes());
          }
        }
      }
    }
    return cut;
  }
  static double RmsError(const std::vector<std::byte>& a,
                         const std::vector<std::byte>& b) {
    std::vector<float> x(a.size() / 2);
    std::vector<float> y(b.size() / 2);
    LoadFloats(Model().dtype, a.data(), x.size(), x.data());
    LoadFloats(Model().dtype, b.data(), y.size(), y.data());
    double squares = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      squares += static_cast<double>(x[i] - y[i]) * (x[i] - y[i]);
    }
    return std::sqrt(squares / static_cast<double>(x.size()));
  }
};

TEST_F(LevelsTest, EachLevelIsDeliveredAloneFromEveryNode) {
  Configure({});
  StartAll();
  const Chunk chunk = MakeFinite(1, LevelSet::Of(Level::kBase2));
  const auto receipt = Put(chunk);
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  const auto found = knowledge().Lookup({&chunk.ref, 1});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ((*found)[0].levels, LevelSet::Of(Level::kBase2).WithRefined());
  std::map<Level, std::vector<std::byte>> delivered;
  int nodes_without = 0;
  for (size_t node = 0; node < 3; ++node) {
    Connect(node);
    double error = 2;
    uint64_t bytes = 0;
    for (const Level level : kLadder) {
      const Got got = GetAt(chunk, LevelSet::Of(level));
      ASSERT_EQ(got.outcome.kind, OutcomeKind::kHit)
          << Name(level) << ": " << got.outcome.why;
      EXPECT_EQ(got.outcome.level, level);
      // Every node decodes the same bits.
      const auto& first = delivered.try_emplace(level, got.kv).first->second;
      EXPECT_EQ(got.kv, first) << Name(level) << " from node " << node;
      EXPECT_LT(RmsError(got.kv, chunk.kv), error / 2) << Name(level);
      error = RmsError(got.kv, chunk.kv);
      if (got.outcome.wire_bytes == 0) continue;
      EXPECT_GT(got.outcome.wire_bytes, bytes)
          << "a finer level takes more bytes between nodes";
      bytes = got.outcome.wire_bytes;
    }
    nodes_without += bytes > 0 ? 1 : 0;
    const Got best = GetAt(chunk, LevelSet::All());
    EXPECT_EQ(best.outcome.level, Level::kBase2);
    EXPECT_EQ(best.kv, delivered[Level::kBase2]);
    for (const Level level : {Level::kLossless, Level::kInt8}) {
      EXPECT_EQ(GetAt(chunk, LevelSet::Of(level)).outcome.kind,
                OutcomeKind::kMiss);
    }
  }
  EXPECT_EQ(nodes_without, 1) << "two copies, three nodes";
}

// The form depends on the durability and on where the object is built. The KV
// does not, also from the other node and after the node that built it is gone.
TEST_F(LevelsTest, ACacheStoreIsRawOnItsOwnerAndComesBackTheSame) {
  Configure({.nodes = 2, .replicas = 1});
  StartAll();
  std::vector<Chunk> chunks;
  int raw = 0;
  int coded = 0;
  for (int i = 0; i < 8; ++i) {
    chunks.push_back(MakeFinite(i, LevelSet::Of(Level::kLossless)));
    Connect(0);
    const auto receipt = Put(chunks.back(), Durability::kCache);
    ASSERT_TRUE(receipt.ok()) << receipt.status();
    const bool here =
        receipt->holders.front() == cluster_->config().nodes[0].id;
    EXPECT_EQ(receipt->bytes > chunks.back().kv.size(), here) << receipt->bytes;
    (here ? raw : coded) += 1;
    for (size_t node = 0; node < 2; ++node) {
      Connect(node);
      const Got got = GetAt(chunks.back(), LevelSet::All());
      EXPECT_EQ(got.outcome.kind, OutcomeKind::kHit) << got.outcome.why;
      EXPECT_EQ(got.kv, chunks.back().kv);
    }
  }
  EXPECT_GT(raw, 0);
  EXPECT_GT(coded, 0);
  Connect(0);
  Chunk again = chunks[0];
  const auto existed = Put(again, Durability::kReplicated);
  ASSERT_TRUE(existed.ok()) << existed.status();
  EXPECT_TRUE(existed->existed) << "the first store's form stays";
}

TEST_F(LevelsTest, ASliceOfALevelIsAPieceOfTheWhole) {
  Configure({});
  StartAll();
  const Chunk chunk = MakeFinite(2, LevelSet::Of(Level::kBase2));
  ASSERT_TRUE(Put(chunk).ok());
  for (size_t node = 0; node < 3; ++node) {
    Connect(node);
    for (const Level level : kLadder) {
      const Got whole = GetAt(chunk, LevelSet::Of(level));
      ASSERT_EQ(whole.outcome.kind, OutcomeKind::kHit);
      for (const KvSlice& slice : {KvSlice{0, 3, 0, 1}, KvSlice{0, 3, 1, 2},
                                   KvSlice{1, 2, 0, 2}, KvSlice{2, 3, 1, 2}}) {
        const Got got = GetAt(chunk, LevelSet::Of(level), slice);
        ASSERT_EQ(got.outcome.kind, OutcomeKind::kHit) << got.outcome.why;
        EXPECT_EQ(got.outcome.level, level);
        EXPECT_EQ(got.kv, Cut(whole.kv, slice))
            << Name(level) << " layers from " << slice.layer_begin
            << ", heads from " << slice.head_begin;
      }
    }
  }
}

TEST_F(LevelsTest, OneNodeDiesAndEveryLevelIsStillThere) {
  Configure({});
  StartAll();
  constexpr int kChunks = 10;
  std::vector<Chunk> chunks;
  std::vector<std::vector<std::byte>> delivered;
  for (int i = 0; i < kChunks; ++i) {
    chunks.push_back(
        MakeFinite(i, LevelSet::All().Without(LevelSet::Of(Level::kArchive))));
    const auto receipt = Put(chunks.back());
    ASSERT_TRUE(receipt.ok()) << receipt.status();
    for (const Level level : kLadder) {
      delivered.push_back(GetAt(chunks.back(), LevelSet::Of(level)).kv);
    }
  }
  cluster_->Kill(1, SIGKILL);
  for (const size_t node : {0, 2}) {
    Connect(node);
    auto before = delivered.begin();
    for (const Chunk& chunk : chunks) {
      for (const Level level : kLadder) {
        const Got got = GetAt(chunk, LevelSet::Of(level));
        ASSERT_EQ(got.outcome.kind, OutcomeKind::kHit)
            << Name(level) << ": " << got.outcome.why;
        EXPECT_EQ(got.kv, *before++) << Name(level);
      }
      const Got best = GetAt(chunk, LevelSet::All());
      EXPECT_EQ(best.outcome.level, Level::kLossless);
      EXPECT_EQ(best.kv, chunk.kv);
    }
  }
}

TEST_F(LevelsTest, ValuesThatALevelCannotHoldAreRefusedWithTheReason) {
  Configure({});
  StartAll();
  Chunk chunk = MakeFinite(3, LevelSet::Of(Level::kBase));
  const float infinity = INFINITY;
  StoreFloats(Model().dtype, &infinity, 1, chunk.kv.data());
  const auto receipt = Put(chunk);
  EXPECT_TRUE(absl::IsInvalidArgument(receipt.status())) << receipt.status();
  ModelSpec model = Model();
  model.head_dim = 512;
  const auto large = client().Open(*Namespace::Parse("test"), model);
  ASSERT_TRUE(large.ok()) << large.status();
  rpc::StoreSpec spec = chunk.spec;
  spec.identity.fingerprint = FingerprintOf(model);
  const auto stream = (*large)->BeginStore(spec);
  EXPECT_TRUE(absl::IsInvalidArgument(stream.status())) << stream.status();
  EXPECT_THAT(std::string(stream.status().message()),
              testing::HasSubstr("head_dim is 512"));
}

// Writes a calibration of the model that keeps only the mean.
void WriteMeans(const ModelSpec& model, const std::string& path) {
  codec::StoredCalibration stored;
  stored.model = FingerprintOf(model);
  stored.geometry = {model.num_layers, model.num_kv_heads, model.head_dim};
  const int dim = model.num_kv_heads * model.head_dim;
  codec::StoredTransform stream;
  stream.mean.assign(dim, 0.25f);
  stream.synthesis.assign(dim * dim, 0);
  for (int i = 0; i < dim; ++i) stream.synthesis[(dim + 1) * i] = 1;
  stream.classes[0].bands.resize(dim / codec::kBandComponents);
  stored.streams.assign(2 * model.num_layers, stream);
  const absl::Status saved =
      cli::SaveCalibration(codec::WriteCalibration(stored), path);
  ASSERT_TRUE(saved.ok()) << saved;
}

TEST_F(LevelsTest, ACalibrationOfTheConfigurationIsKeptByTheNodes) {
  cli::LocalClusterOptions options;
  options.calibrations = directory_ + "/calibrations";
  std::filesystem::create_directory(options.calibrations);
  const std::string file = options.calibrations + "/means.kdncal";
  WriteMeans(Model(), file);
  Configure(options);
  StartAll();
  const Chunk chunk = MakeFinite(4, LevelSet::Of(Level::kBase));
  const auto receipt = Put(chunk, Durability::kDurable);
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  const Got with = GetAt(chunk, LevelSet::All());
  ASSERT_EQ(with.outcome.kind, OutcomeKind::kHit) << with.outcome.why;
  float value = 0;
  LoadFloats(Model().dtype, with.kv.data() + with.kv.size() - 2, 1, &value);
  EXPECT_EQ(value, 0.25f) << "the chunk was coded with this calibration";

  std::filesystem::remove(file);
  knowledge_.reset();
  client_.reset();
  cluster_->Kill(0, SIGTERM);
  ASSERT_TRUE(cluster_->Start(0).ok());
  ASSERT_TRUE(cluster_->WaitAllReady(absl::Seconds(30)).ok());
  for (size_t node = 0; node < 3; ++node) {
    Connect(node);
    EXPECT_EQ(GetAt(chunk, LevelSet::All()).kv, with.kv) << "node " << node;
  }
}

TEST_F(LevelsTest, ABadCalibrationKeepsANodeFromStarting) {
  cli::LocalClusterOptions options;
  options.calibrations = directory_ + "/calibrations";
  Configure(options);
  std::filesystem::create_directory(options.calibrations);
  std::ofstream(options.calibrations + "/m.kdncal") << "no calibration";
  ASSERT_TRUE(cluster_->Start(0).ok());
  const absl::Status ready = cluster_->WaitReady(0, 1, absl::Seconds(20));
  EXPECT_TRUE(absl::IsUnavailable(ready)) << ready;
  EXPECT_THAT(std::string(ready.message()),
              testing::AllOf(testing::HasSubstr("m.kdncal"),
                             testing::HasSubstr("does not begin with KDNCAL")));
}

}  // namespace
}  // namespace kdn::integration
