#include "model/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kdn::model {
namespace {

constexpr int kDim = 12;

std::vector<float> Random(size_t count, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(rng);
  return values;
}

std::vector<float> Attend(absl::Span<const float> keys,
                          const std::vector<float>& values,
                          const std::vector<float>& query,
                          const HeadAttention::Allowed& allowed) {
  std::vector<float> result(kDim, NAN);
  HeadAttention(keys, values, kDim)
      .Attend(query, allowed, absl::MakeSpan(result));
  return result;
}

// softmax(q K^T / sqrt(dim)) V over the allowed tokens, in double precision.
std::vector<double> Expected(absl::Span<const float> keys,
                             const std::vector<float>& values,
                             const std::vector<float>& query,
                             const HeadAttention::Allowed& allowed) {
  std::vector<double> result(kDim, 0.0);
  double sum = 0.0;
  for (size_t slot = 0; slot < allowed.size(); ++slot) {
    if (allowed[slot] == 0) continue;
    double score = 0.0;
    for (int i = 0; i < kDim; ++i) score += query[i] * keys[slot * kDim + i];
    const double weight = std::exp(score / std::sqrt(kDim));
    sum += weight;
    for (int i = 0; i < kDim; ++i) {
      result[i] += weight * values[slot * kDim + i];
    }
  }
  for (double& value : result) value /= sum;
  return result;
}

TEST(HeadAttentionTest, IsTheSoftmaxOverTheAllowedTokens) {
  std::mt19937 rng(5);
  for (const int slots : {1, 3, 4, 5, 257}) {
    const std::vector<float> keys = Random(slots * kDim, rng);
    const std::vector<float> values = Random(slots * kDim, rng);
    const std::vector<float> query = Random(kDim, rng);
    HeadAttention::Allowed allowed(slots, 1);
    for (int slot = 1; slot < slots; ++slot) allowed[slot] = rng() % 3 != 0;
    const std::vector<float> got = Attend(keys, values, query, allowed);
    const std::vector<double> expected = Expected(keys, values, query, allowed);
    for (int i = 0; i < kDim; ++i) {
      EXPECT_NEAR(got[i], expected[i], 1e-5) << slots << " tokens";
    }
  }
}

TEST(HeadAttentionTest, TokensThatAreNotAllowedDoNotChangeABit) {
  std::mt19937 rng(6);
  const std::vector<float> keys = Random(40 * kDim, rng);
  const std::vector<float> values = Random(40 * kDim, rng);
  const std::vector<float> query = Random(kDim, rng);
  HeadAttention::Allowed allowed(40, 0);
  std::fill_n(allowed.begin(), 30, 1);
  const std::vector<float> of_forty = Attend(keys, values, query, allowed);
  allowed.resize(30);
  EXPECT_EQ(of_forty, Attend(absl::MakeSpan(keys).subspan(0, 30 * kDim),
                             {values.begin(), values.begin() + 30 * kDim},
                             query, allowed));
}

TEST(HeadAttentionTest, WithoutAnAllowedTokenTheResultIsZero) {
  std::mt19937 rng(7);
  const std::vector<float> tokens = Random(2 * kDim, rng);
  EXPECT_EQ(Attend(tokens, tokens, Random(kDim, rng), {0, 0}),
            std::vector<float>(kDim, 0.0f));
}

}  // namespace
}  // namespace kdn::model
