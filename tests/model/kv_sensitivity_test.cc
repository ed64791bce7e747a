#include "model/kv_sensitivity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kv/dtype.h"
#include "model/divergence.h"

namespace kdn::model {
namespace {

constexpr int kContext = 60;
constexpr int kBehind = 20;

class KvSensitivityTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto llama = Llama::Load(
        std::string(KDN_SOURCE_DIR "/tests/model/fixtures/") + GetParam(),
        {Compute::kFp32, Dtype::kFp32});
    ASSERT_TRUE(llama.ok()) << llama.status();
    llama_ = *std::move(llama);
    for (int i = 0; i < kContext + kBehind; ++i) {
      tokens_.push_back((i * 37 + 11) % 95);
    }
    cache_ = std::make_unique<KvCache>(llama_->spec(), kContext + kBehind);
    ASSERT_TRUE(llama_->PrefillInChunks(*cache_, before(), 0).ok());
  }
  absl::Span<const int32_t> before() const {
    return absl::MakeConstSpan(tokens_).first(kContext);
  }
  absl::Span<const int32_t> behind() const {
    return absl::MakeConstSpan(tokens_).subspan(kContext);
  }
  std::vector<float> Logits() {
    std::vector<int32_t> positions(kBehind);
    std::iota(positions.begin(), positions.end(), kContext);
    auto logits =
        llama_->Prefill(*cache_, behind(), positions, LogitRows::kAll);
    EXPECT_TRUE(logits.ok()) << logits.status();
    cache_->Truncate(kContext);
    return *std::move(logits);
  }
  // The mean divergence behind the context when the values of one head have
  // noise of this deviation, apart from the first token's.
  double DivergenceWith(int layer, KvPart part, int head, float deviation) {
    constexpr int kDraws = 10;
    const MutableKvView kv = cache_->Tokens(0, kContext);
    const size_t dim = static_cast<size_t>(llama_->config().head_dim);
    const std::vector<float> exact = Logits();
    std::mt19937 random(7);
    std::normal_distribution<float> noise(0, deviation);
    double divergence = 0;
    for (int draw = 0; draw < kDraws; ++draw) {
      std::vector<float> kept;
      for (int token = 1; token < kContext; ++token) {
        auto* row = reinterpret_cast<float*>(kv.At(layer, part, head, token));
        kept.insert(kept.end(), row, row + dim);
        for (size_t d = 0; d < dim; ++d) row[d] += noise(random);
      }
      divergence +=
          MeanDivergence(exact, Logits(), llama_->config().vocab_size) / kDraws;
      for (int token = 1; token < kContext; ++token) {
        auto* row = reinterpret_cast<float*>(kv.At(layer, part, head, token));
        std::copy_n(&kept[(token - 1) * dim], dim, row);
      }
    }
    return divergence;
  }
  std::unique_ptr<Llama> llama_;
  std::vector<int32_t> tokens_;
  std::unique_ptr<KvCache> cache_;
};

TEST_P(KvSensitivityTest, PredictsTheDivergenceThatNoiseCauses) {
  KvSensitivity sensitivity(*llama_);
  std::mt19937 random(5);
  ASSERT_TRUE(sensitivity.Add(*cache_, behind(), 60, random).ok());
  const std::vector<double> mean = sensitivity.Mean();
  const ModelConfig& config = llama_->config();
  constexpr float kDeviation = 0.01f;
  size_t at = 0;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < config.num_kv_heads; ++head, ++at) {
        // In the cache, K has been multiplied by the attention factor.
        const double factor =
            part == KvPart::kK ? config.rope.attention_factor : 1.0;
        const double predicted = 0.5 * kDeviation * kDeviation * mean[at] *
                                 (kContext - 1) * config.head_dim /
                                 (factor * factor);
        const double measured = DivergenceWith(layer, part, head, kDeviation);
        EXPECT_NEAR(measured / predicted, 1.0, 0.35)
            << "layer " << layer << " part " << static_cast<int>(part)
            << " head " << head << ": " << measured;
      }
    }
  }
}

TEST_P(KvSensitivityTest, LeavesTheContextAsItIs) {
  const std::vector<float> exact = Logits();
  KvSensitivity sensitivity(*llama_);
  std::mt19937 random(5);
  ASSERT_TRUE(sensitivity.Add(*cache_, behind(), 1, random).ok());
  EXPECT_EQ(cache_->size(), kContext);
  EXPECT_EQ(Logits(), exact);
}

TEST_P(KvSensitivityTest, RefusesAContextThatSaysNothing) {
  KvSensitivity sensitivity(*llama_);
  std::mt19937 random(5);
  EXPECT_EQ(sensitivity.Add(*cache_, {}, 1, random).status().code(),
            absl::StatusCode::kInvalidArgument);
  cache_->Truncate(1);
  EXPECT_EQ(sensitivity.Add(*cache_, behind(), 1, random).status().code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, KvSensitivityTest,
                         testing::Values("llama_gqa", "qwen2_bias",
                                         "llama_yarn", "llama_untied"));

}  // namespace
}  // namespace kdn::model
