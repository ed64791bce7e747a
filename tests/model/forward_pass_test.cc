#include "model/forward_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <vector>

#include "model/llama.h"
#include "reference_pass.h"

namespace kdn::model {
namespace {

const std::string kFixtures = KDN_SOURCE_DIR "/tests/model/fixtures/";

std::vector<int32_t> Range(int begin, int count) {
  std::vector<int32_t> range(count);
  std::iota(range.begin(), range.end(), begin);
  return range;
}

// Writes down what it is told.
class Recorder : public PassObserver {
 public:
  bool WantsDeviation(int) const override { return true; }
  bool WantsMass(int) const override { return true; }
  void OnDeviation(int layer, absl::Span<const float> k,
                   absl::Span<const float> v) override {
    k_[layer].assign(k.begin(), k.end());
    v_[layer].assign(v.begin(), v.end());
  }
  void OnMass(int layer, int sequence, absl::Span<const float> mass) override {
    mass_[{layer, sequence}].assign(mass.begin(), mass.end());
  }
  std::map<int, std::vector<float>> k_, v_;
  std::map<std::pair<int, int>, std::vector<float>> mass_;
};

class ForwardPassTest : public testing::Test {
 protected:
  void Load(const std::string& fixture, Llama::Options options) {
    auto loaded = Llama::Load(kFixtures + fixture, options);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    llama_ = *std::move(loaded);
    for (int i = 0; i < 150; ++i) tokens_.push_back((i * 37 + 11) % 95);
  }
  void LoadFp32(const std::string& fixture) {
    Load(fixture, {Compute::kFp32, Dtype::kFp32});
  }
  int layers() const { return llama_->config().num_layers; }
  std::vector<float> LogitsOf(ForwardPass& pass, std::vector<int> rows) {
    std::vector<float> logits(rows.size() * llama_->config().vocab_size);
    pass.Logits(rows, absl::MakeSpan(logits));
    return logits;
  }
  std::vector<float> RunAll(ForwardPass& pass, PassObserver* observer) {
    for (int i = 0; i < layers(); ++i) pass.RunLayer(i, observer);
    return LogitsOf(pass, Range(0, static_cast<int>(pass.rows().size())));
  }
  void ExpectNear(const std::vector<float>& got,
                  const std::vector<float>& wanted, float tolerance) {
    ASSERT_EQ(got.size(), wanted.size());
    float most = 0;
    for (const float value : wanted) most = std::max(most, std::fabs(value));
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], wanted[i], tolerance * most) << i;
    }
  }
  std::unique_ptr<Llama> llama_;
  std::vector<int32_t> tokens_;
  Workspace workspace_;
};

TEST_F(ForwardPassTest, IsTheReferencePass) {
  for (const char* fixture : {"llama_gqa", "llama_untied", "qwen2_bias"}) {
    tokens_.clear();
    LoadFp32(fixture);
    const auto positions = Range(5, 150);
    ReferencePass reference(kFixtures + fixture);
    const std::vector<float> expected = reference.Run(
        tokens_, positions, [](int query, int key) { return key <= query; });
    KvCache cache(llama_->spec(), 150);
    ForwardPass pass(*llama_, workspace_);
    ASSERT_TRUE(
        pass.Begin(
                {{.cache = &cache, .tokens = tokens_, .positions = positions}})
            .ok());
    Recorder recorder;
    ExpectNear(RunAll(pass, &recorder), expected, 1e-4f);
    for (int layer = 0; layer < layers(); ++layer) {
      const std::vector<float>& mass = recorder.mass_[{layer, 0}];
      ASSERT_EQ(mass.size(), 150u);
      for (int token = 0; token < 150; ++token) {
        EXPECT_NEAR(mass[token], reference.mass()[layer][token], 1e-2);
      }
    }
  }
}

TEST_F(ForwardPassTest, AMaskOfIntervalsIsTheSameRuleInTheReference) {
  LoadFp32("llama_gqa");
  const auto positions = Range(0, 150);
  // The first four tokens and the last 20, as with a window behind sinks.
  const auto rule = [](int query, int key) {
    return key <= query && (key < 4 || key > query - 20);
  };
  AttentionMask mask;
  for (int64_t i = 0; i < 150; ++i) {
    mask.AddRow({{0, std::min<int64_t>(4, i + 1)}, {i - 19, i + 1}});
  }
  KvCache cache(llama_->spec(), 150);
  ForwardPass pass(*llama_, workspace_);
  ASSERT_TRUE(pass.Begin({{.cache = &cache,
                           .tokens = tokens_,
                           .positions = positions,
                           .mask = &mask}})
                  .ok());
  ReferencePass reference(kFixtures + "llama_gqa");
  ExpectNear(RunAll(pass, nullptr), reference.Run(tokens_, positions, rule),
             1e-4f);
}

TEST_F(ForwardPassTest, SlotsAreComputedAnewInPlace) {
  Load("llama_gqa", {});
  const auto positions = Range(0, 150);
  KvCache whole(llama_->spec(), 150);
  const auto expected =
      llama_->Prefill(whole, tokens_, positions, LogitRows::kAll);
  ASSERT_TRUE(expected.ok());
  // The KV of some tokens is spoilt. Computing these tokens anew in ascending
  // order gives the bits back, because each depends on earlier tokens only.
  KvCache cache(llama_->spec(), 150);
  std::memcpy(cache.view().base(), whole.view().base(),
              KvCache::BytesFor(llama_->spec(), 150));
  cache.Append(positions);
  const std::vector<int32_t> slots = {3, 64, 65, 149};
  std::vector<int32_t> tokens;
  for (const int32_t slot : slots) {
    tokens.push_back(tokens_[slot]);
    for (int layer = 0; layer < layers(); ++layer) {
      for (int head = 0; head < llama_->spec().num_kv_heads; ++head) {
        std::memset(cache.view().At(layer, KvPart::kV, head, slot), 0,
                    cache.view().shape().head_bytes());
      }
    }
  }
  ForwardPass pass(*llama_, workspace_);
  ASSERT_TRUE(pass.Begin({{.cache = &cache,
                           .tokens = tokens,
                           .positions = slots,
                           .slots = slots}})
                  .ok());
  Recorder recorder;
  const std::vector<float> logits = RunAll(pass, &recorder);
  const size_t vocab = llama_->config().vocab_size;
  for (size_t i = 0; i < slots.size(); ++i) {
    const auto row = expected->begin() + slots[i] * vocab;
    EXPECT_EQ(std::vector<float>(row, row + vocab),
              std::vector<float>(logits.begin() + i * vocab,
                                 logits.begin() + (i + 1) * vocab));
    for (int layer = 0; layer < layers(); ++layer) {
      EXPECT_EQ(recorder.k_[layer][i], 0.0f) << "K was right before";
      EXPECT_GT(recorder.v_[layer][i], 0.0f) << "V was zero before";
    }
  }
  EXPECT_EQ(std::memcmp(cache.view().base(), whole.view().base(),
                        KvCache::BytesFor(llama_->spec(), 150)),
            0);
  EXPECT_EQ(cache.size(), 150);
}

TEST_F(ForwardPassTest, KeepsSomeRowsForTheLayersToCome) {
  Load("llama_gqa", {});
  const auto positions = Range(0, 150);
  KvCache whole(llama_->spec(), 150);
  const auto expected = llama_->Prefill(whole, tokens_, positions);
  ASSERT_TRUE(expected.ok());
  // The first layer computes all tokens. The later layers find the KV of most
  // tokens in the cache, as after a delivery.
  KvCache cache(llama_->spec(), 150);
  std::memcpy(cache.view().base(), whole.view().base(),
              KvCache::BytesFor(llama_->spec(), 150));
  ForwardPass pass(*llama_, workspace_);
  ASSERT_TRUE(
      pass.Begin({{.cache = &cache, .tokens = tokens_, .positions = positions}})
          .ok());
  pass.RunLayer(0);
  pass.Keep({2, 70, 149});
  ASSERT_EQ(pass.rows().size(), 3u);
  EXPECT_EQ(pass.rows()[1].slot, 70);
  EXPECT_EQ(pass.rows()[1].token, tokens_[70]);
  Recorder recorder;
  for (int i = 1; i < layers(); ++i) pass.RunLayer(i, &recorder);
  EXPECT_EQ(LogitsOf(pass, {2}), *expected);
  for (int layer = 1; layer < layers(); ++layer) {
    EXPECT_EQ(recorder.k_[layer], std::vector<float>(3, 0.0f));
    const std::vector<float>& mass = recorder.mass_[{layer, 0}];
    EXPECT_NEAR(std::accumulate(mass.begin(), mass.end(), 0.0),
                3.0 * llama_->config().num_heads, 1e-2);
  }
}

TEST_F(ForwardPassTest, SlotsAndMasksAreChecked) {
  Load("llama_gqa", {});
  KvCache cache(llama_->spec(), 8);
  cache.Append(Range(10, 4));
  ForwardPass pass(*llama_, workspace_);
  const std::vector<int32_t> tokens = {1, 2};
  const auto begin = [&](std::vector<int32_t> positions,
                         std::vector<int32_t> slots) {
    return pass.Begin({{.cache = &cache,
                        .tokens = tokens,
                        .positions = positions,
                        .slots = slots}});
  };
  EXPECT_TRUE(begin({11, 13}, {1, 3}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(begin({11, 12}, {1, 3})));
  EXPECT_TRUE(absl::IsInvalidArgument(begin({13, 11}, {3, 1})));
  EXPECT_TRUE(absl::IsInvalidArgument(begin({11, 11}, {1, 1})));
  EXPECT_TRUE(absl::IsInvalidArgument(begin({13, 14}, {3, 4})));
  EXPECT_TRUE(absl::IsInvalidArgument(begin({9, 10}, {-1, 0})));
  EXPECT_TRUE(absl::IsInvalidArgument(begin({11, 12}, {1})));
  AttentionMask mask;
  mask.AddRow({{0, 20}});
  const auto positions = Range(14, 2);
  EXPECT_TRUE(absl::IsInvalidArgument(pass.Begin({{.cache = &cache,
                                                   .tokens = tokens,
                                                   .positions = positions,
                                                   .mask = &mask}})));
  EXPECT_EQ(cache.size(), 4);
}

}  // namespace
}  // namespace kdn::model
