// A link between two nodes whose rate drops. One kind of link is the loopback
// device of a network namespace, shaped by tc. The other kind is a proxy that
// passes bytes on at a limited rate, for systems that allow no namespaces.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "bench/shaped_link.h"
#include "kv/clock.h"
#include "tests/codec/test_chunk.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/rpc/faulty_proxy.h"

namespace kdn::integration {
namespace {

constexpr int kTokens = 64;
constexpr size_t kChunks = 16;
// Lossless takes 1.2 s on the fast link and 12 s on the slow link; base takes a
// tenth of that. A retrieve plans with 0.8 of the link's rate for half of its
// deadline, so the chosen levels take at most 3.2 s at the full rate. The
// remaining 0.8 s of that half allow for a busy machine.
constexpr double kFast = 3e6;  // bytes/s
constexpr double kSlow = kFast / 10;
constexpr absl::Duration kDeadline = absl::Seconds(8);
constexpr absl::Duration kLong = absl::Seconds(30);

enum class LinkKind { kShaped, kPaced };

// A model in fp32. Its KV at base is a tenth of its KV at lossless.
ModelSpec WideModel(ModelSpec model) {
  model.num_layers = 4;
  model.num_kv_heads = 4;
  model.dtype = Dtype::kFp32;
  return model;
}

// Two nodes. The engine is connected to the first node. The second node holds
// every chunk and is reached over the link.
class RateTest : public ClusterTest,
                 public testing::WithParamInterface<LinkKind> {
 protected:
  RateTest() : ClusterTest(WideModel(Model())) {}

  // Runs before there are threads, as namespaces need.
  static void SetUpTestSuite() {
    can_shape_ = bench::EnterOwnNetwork();
    // The kernel may lack the token bucket.
    if (can_shape_.ok()) can_shape_ = bench::ShapeLoopback(kFast);
    if (can_shape_.ok()) can_shape_ = bench::ShapeLoopback(0);
  }

  void SetUp() override {
    if (GetParam() == LinkKind::kShaped && !can_shape_.ok()) {
      GTEST_SKIP() << can_shape_;
    }
    // Nodes start and are filled at the speed of loopback.
    LimitLink(0);
    cli::LocalClusterOptions options;
    options.nodes = 2;
    options.replicas = 1;
    options.disk_bytes = 0;
    Configure(options);
    ASSERT_NO_FATAL_FAILURE(StartLinked());
    Connect(0);
    for (int i = 0; chunks_.size() < kChunks; ++i) {
      Chunk chunk = Make(i);
      chunk.spec.levels =
          LevelSet::Of(Level::kBase2).WithRefined().With(Level::kLossless);
      FillNormal(i, chunk);
      const auto receipt = Put(chunk);
      ASSERT_TRUE(receipt.ok()) << receipt.status();
      if (receipt->holders[0] == cluster_->config().nodes[1].id) {
        chunks_.push_back(std::move(chunk));
      }
    }
    LimitLink(kFast);
  }

  void TearDown() override {
    if (can_shape_.ok() || !shaped()) LimitLink(0);
  }

  // The first node reaches the second one's bulk port over the link.
  void StartLinked() {
    std::string file = directory_ + "/cluster.yaml";
    if (!shaped()) file = UseProxy(file);
    first_ = std::make_unique<cli::ClusterProcess>(KDN_BINARY_DIR "/bin/kdn",
                                                   file, cluster_->config(),
                                                   directory_ + "/logs");
    ASSERT_TRUE(first_->Start(0).ok());
    ASSERT_TRUE(cluster_->Start(1).ok());
    const absl::Status ready = first_->WaitReady(0, 2, absl::Seconds(60));
    ASSERT_TRUE(ready.ok()) << ready;
  }

  // Starts the proxy, and returns a configuration in which the second node's
  // bulk port is the proxy's.
  std::string UseProxy(const std::string& file) {
    const uint16_t port = cluster_->config().nodes[1].bulk_port;
    proxy_ =
        std::make_unique<rpc::FaultyProxy>(port, rpc::FaultyProxy::Fault());
    std::stringstream text;
    text << std::ifstream(file).rdbuf();
    const std::string linked = directory_ + "/linked.yaml";
    std::ofstream(linked) << absl::StrReplaceAll(
        text.str(), {{absl::StrCat("bulk_port: ", port),
                      absl::StrCat("bulk_port: ", proxy_->port())}});
    return linked;
  }

  static bool shaped() { return GetParam() == LinkKind::kShaped; }

  // Limits the rate of the link. 0: no limit.
  void LimitLink(double bytes_per_second) {
    if (shaped()) {
      const absl::Status shaped = bench::ShapeLoopback(bytes_per_second);
      ASSERT_TRUE(shaped.ok()) << shaped;
    } else if (proxy_ != nullptr) {
      proxy_->set_bytes_per_second(bytes_per_second);
    }
  }

  void FillNormal(int seed, Chunk& chunk) const {
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::normal_distribution<float> normal;
    std::vector<float> values(chunk.kv.size() / SizeOf(model_.dtype));
    for (float& value : values) value = normal(random);
    StoreFloats(model_.dtype, values.data(), values.size(), chunk.kv.data());
  }

  struct Got {
    std::vector<ChunkOutcome> outcomes;
    std::vector<std::byte> kv;
    size_t hits = 0;
    size_t recompute = 0;
    LevelSet levels;  // the least exact level of each hit
    uint64_t wire_bytes = 0;
    absl::Duration took;
  };
  Got RetrieveAll(absl::Duration timeout, double prefill = 0) {
    const KvShape shape = ShapeOf(model_, kTokens);
    Got got;
    got.kv.resize(kChunks * shape.bytes());
    rpc::RetrieveSpec spec;
    spec.prefill_tokens_per_second = prefill;
    for (size_t i = 0; i < kChunks; ++i) {
      spec.chunks.push_back(
          {chunks_[i].ref, chunks_[i].spec.positions,
           MutableKvView(got.kv.data() + i * shape.bytes(), shape,
                         KvStrides::TokenMajor(shape))});
    }
    const absl::Time begin = SteadyNow();
    const auto outcomes = knowledge().Retrieve(spec, nullptr, timeout);
    got.took = SteadyNow() - begin;
    EXPECT_TRUE(outcomes.ok()) << outcomes.status();
    if (!outcomes.ok()) return got;
    got.outcomes = *outcomes;
    for (const ChunkOutcome& outcome : *outcomes) {
      got.wire_bytes += outcome.wire_bytes;
      got.recompute += outcome.kind == OutcomeKind::kRecompute ? 1 : 0;
      if (outcome.kind != OutcomeKind::kHit) continue;
      ++got.hits;
      got.levels = got.levels.With(outcome.level);
    }
    return got;
  }

  // Expects that every value of a hit differs from the engine's by at most the
  // error that the object states for its stream, at the delivered level or a
  // more exact one.
  void ExpectWithinCertifiedErrors(const Got& got) const {
    const KvShape shape = ShapeOf(model_, kTokens);
    const KvStrides strides = KvStrides::TokenMajor(shape);
    for (size_t i = 0; i < got.outcomes.size(); ++i) {
      const ChunkOutcome& outcome = got.outcomes[i];
      if (outcome.kind != OutcomeKind::kHit) continue;
      const KvView stored(chunks_[i].kv.data(), shape, strides);
      const codec::ObjectIndex index = IndexOf(chunks_[i], stored);
      ASSERT_EQ(index.version(), outcome.version) << "encoding is a function";
      const KvView came(got.kv.data() + i * shape.bytes(), shape, strides);
      for (int layer = 0; layer < shape.layers; ++layer) {
        for (const KvPart part : {KvPart::kK, KvPart::kV}) {
          ASSERT_LE(LargestDifference(stored, came, layer, part),
                    CertifiedError(index, outcome.level, layer, part))
              << "chunk " << i << " at " << Name(outcome.level) << ", layer "
              << layer;
        }
      }
    }
  }

  std::unique_ptr<rpc::FaultyProxy> proxy_;
  std::unique_ptr<cli::ClusterProcess> first_;
  std::vector<Chunk> chunks_;

 private:
  // The index of the object that the node has made of the chunk.
  codec::ObjectIndex IndexOf(const Chunk& chunk, const KvView& kv) const {
    const codec::ObjectHeader header = {
        .identity = chunk.spec.identity,
        .shape = kv.shape(),
        .rope = model_.rope,
        .positions = chunk.spec.positions,
        .levels = chunk.spec.levels,
        .calibration = {},
    };
    const std::vector<std::byte> object = codec::Encode(header, kv);
    return *codec::ObjectIndex::Parse(object, object.size());
  }

  // The stated error of a layer's K or V. All heads share a stream.
  static float CertifiedError(const codec::ObjectIndex& index, Level level,
                              int layer, KvPart part) {
    float error = 0;
    for (const Level exact : kLevelsByQuality) {
      if (!index.header().levels.Has(exact) || exact == Level::kLossless) {
        continue;
      }
      error = std::max(error, index.Entry({exact, layer, part, 0}).error_max);
      if (exact == level) break;
    }
    return level == Level::kLossless ? 0 : error;
  }

  static float LargestDifference(const KvView& a, const KvView& b, int layer,
                                 KvPart part) {
    const KvShape& shape = a.shape();
    std::vector<float> x(shape.head_dim);
    std::vector<float> y(shape.head_dim);
    float largest = 0;
    for (int head = 0; head < shape.kv_heads; ++head) {
      for (int token = 0; token < shape.tokens; ++token) {
        LoadFloats(shape.dtype, a.At(layer, part, head, token), x.size(),
                   x.data());
        LoadFloats(shape.dtype, b.At(layer, part, head, token), y.size(),
                   y.data());
        for (size_t d = 0; d < x.size(); ++d) {
          largest = std::max(largest, std::abs(x[d] - y[d]));
        }
      }
    }
    return largest;
  }

  static absl::Status can_shape_;
};

absl::Status RateTest::can_shape_;

TEST_P(RateTest, AThrottledLinkMeetsTheDeadlineAtALowerLevel) {
  const LevelSet exact = LevelSet::Of(Level::kLossless);
  // The rate of the link is unknown: the first retrieve measures it.
  EXPECT_EQ(RetrieveAll(kLong).hits, kChunks);
  const Got before = RetrieveAll(kDeadline);
  EXPECT_EQ(before.hits, kChunks);
  EXPECT_EQ(before.levels, exact);
  ExpectWithinCertifiedErrors(before);
  ASSERT_GT(before.wire_bytes, 1.4 * kSlow * absl::ToDoubleSeconds(kDeadline))
      << "lossless would fit";
  LimitLink(kSlow);
  // The measured rate is too high for one retrieve.
  RetrieveAll(kDeadline);
  const MetricValues hopeful = StatusOf(0).metrics;
  const Got after = RetrieveAll(kDeadline);
  EXPECT_EQ(after.hits, kChunks);
  EXPECT_EQ(after.recompute, 0u);
  EXPECT_LT(after.took, kDeadline);
  EXPECT_FALSE(after.levels.Has(Level::kLossless));
  EXPECT_LT(after.wire_bytes, before.wire_bytes / 2);
  ExpectWithinCertifiedErrors(after);
  // The counters report the prediction and the result.
  const MetricValues rate = StatusOf(0).metrics;
  EXPECT_EQ(rate["rate.plans_blind"], 1u);
  EXPECT_EQ(rate["rate.plans"], hopeful["rate.plans"] + 1);
  EXPECT_EQ(rate["rate.chunks_loaded"],
            hopeful["rate.chunks_loaded"] + kChunks);
  const uint64_t predicted =
      rate["rate.bytes_predicted"] - hopeful["rate.bytes_predicted"];
  EXPECT_EQ(rate["rate.bytes_actual"] - hopeful["rate.bytes_actual"],
            predicted);
  EXPECT_LE(predicted, after.wire_bytes) << "headers are not in the plan";
  EXPECT_GT(rate["rate.load_us_predicted"], hopeful["rate.load_us_predicted"]);
  EXPECT_GT(rate["rate.load_us_actual"], hopeful["rate.load_us_actual"]);
  EXPECT_LT(absl::Microseconds(rate["rate.load_us_actual"] -
                               hopeful["rate.load_us_actual"]),
            kDeadline);
}

TEST_P(RateTest, ChunksThatTheEngineRecomputesFasterAreNotSent) {
  EXPECT_EQ(RetrieveAll(kLong).hits, kChunks);
  // The base level takes at least some 300 bytes per token, so this link
  // carries at most 10,000 tokens per second.
  const Got fast = RetrieveAll(kLong, 1e9);
  EXPECT_EQ(fast.recompute, kChunks);
  EXPECT_EQ(fast.wire_bytes, 0u);
  const Got slow = RetrieveAll(kLong, 100.0);
  EXPECT_EQ(slow.hits, kChunks);
  const NodeStatus status = StatusOf(0);
  EXPECT_EQ(status.metrics["chunks_recomputed"], kChunks);
  EXPECT_EQ(status.metrics["rate.chunks_recomputed"], kChunks);
  EXPECT_EQ(status.metrics["rate.slower_than_recompute"], 0u);
}

INSTANTIATE_TEST_SUITE_P(Links, RateTest,
                         testing::Values(LinkKind::kShaped, LinkKind::kPaced),
                         [](const auto& info) {
                           return info.param == LinkKind::kShaped ? "Shaped"
                                                                  : "Paced";
                         });

}  // namespace
}  // namespace kdn::integration
