#include "model/row_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "model/safetensors.h"

namespace kdn::model {
namespace {

const std::string kFixtures = KDN_SOURCE_DIR "/tests/model/fixtures/";

class RowMetricsTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto llama =
        Llama::Load(kFixtures + GetParam(), {Compute::kFp32, Dtype::kFp32});
    ASSERT_TRUE(llama.ok()) << llama.status();
    llama_ = *std::move(llama);
    metrics_ = std::make_unique<RowMetrics>(*llama_);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 80; ++i) tokens.push_back((i * 37 + 11) % 95);
    KvCache cache(llama_->spec(), 80);
    ASSERT_TRUE(llama_->PrefillInChunks(cache, tokens, 0, metrics_.get()).ok());
  }
  // e' m e.
  static double Form(const std::vector<double>& m,
                     const std::vector<double>& e) {
    double sum = 0;
    for (size_t a = 0; a < e.size(); ++a) {
      for (size_t b = 0; b < e.size(); ++b) {
        sum += e[a] * m[a * e.size() + b] * e[b];
      }
    }
    return sum;
  }
  std::unique_ptr<Llama> llama_;
  std::unique_ptr<RowMetrics> metrics_;
};

// An error in V, through the output matrix of each head that reads it.
TEST_P(RowMetricsTest, VIsTheOutputMatrix) {
  const ModelConfig& config = llama_->config();
  const auto checkpoint = Checkpoint::Open(kFixtures + GetParam());
  ASSERT_TRUE(checkpoint.ok());
  const int width = config.num_heads * config.head_dim;
  const auto weights = checkpoint->GetFloats(
      "model.layers.1.self_attn.o_proj.weight", {config.hidden_size, width});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const int group = config.num_heads / config.num_kv_heads;
  for (int kv_head = 0; kv_head < config.num_kv_heads; ++kv_head) {
    std::vector<double> error;
    for (int d = 0; d < config.head_dim; ++d) error.push_back(std::sin(d + 1));
    double expected = 0;
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (int o = 0; o < config.hidden_size; ++o) {
        double sum = 0;
        for (int d = 0; d < config.head_dim; ++d) {
          sum += error[d] * (*weights)[o * width + head * config.head_dim + d];
        }
        expected += sum * sum;
      }
    }
    EXPECT_NEAR(Form(metrics_->OfV(1, kv_head), error) / expected, 1.0, 1e-4);
  }
}

TEST_P(RowMetricsTest, KIsSymmetricAndPositive) {
  const ModelConfig& config = llama_->config();
  const auto dim = static_cast<size_t>(config.head_dim);
  for (int layer = 0; layer < config.num_layers; ++layer) {
    for (int kv_head = 0; kv_head < config.num_kv_heads; ++kv_head) {
      const std::vector<double> m = metrics_->OfK(layer, kv_head);
      double most = 0;
      for (const double x : m) most = std::max(most, std::fabs(x));
      for (size_t a = 0; a < dim; ++a) {
        std::vector<double> unit(dim);
        unit[a] = 1;
        EXPECT_GT(Form(m, unit), 0);
        for (size_t b = 0; b < a; ++b) {
          EXPECT_NEAR(m[a * dim + b], m[b * dim + a], 1e-5 * most);
        }
      }
    }
  }
}

// Turning by many distances leaves no direction of a fast pair: both elements
// of the pair that turns fastest cost the same.
TEST_P(RowMetricsTest, KIsTheMeanOverDistances) {
  const ModelConfig& config = llama_->config();
  const auto dim = static_cast<size_t>(config.head_dim);
  const size_t partner = static_cast<size_t>(config.rope.rotary_dim) / 2;
  const std::vector<double> m = metrics_->OfK(0, 0);
  const double first = m[0];
  const double second = m[partner * dim + partner];
  EXPECT_NEAR(first / second, 1.0, 0.05);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, RowMetricsTest,
                         testing::Values("llama_gqa", "qwen2_bias",
                                         "llama_yarn"));

}  // namespace
}  // namespace kdn::model
