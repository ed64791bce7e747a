#include "codec/transform/analysis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/codec/supported_isas.h"

namespace kdn::codec {
namespace {

std::vector<float> Normal(size_t count, std::mt19937* rng) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(*rng);
  return values;
}

struct Case {
  int components;
  int dim;
  int tokens;
};

void ExpectCloseToAPlainLoop(const Case& c, std::mt19937* rng) {
  const auto matrix = Normal(static_cast<size_t>(c.components) * c.dim, rng);
  const auto rows = Normal(static_cast<size_t>(c.tokens) * c.dim, rng);
  const AnalysisMatrix analysis(c.components, c.dim, matrix);
  const size_t sums = static_cast<size_t>(c.tokens) * c.components;
  for (Isa isa : IsasUnderTest()) {
    std::vector<float> out(sums + 1, -7.0f);
    analysis.Apply(rows.data(), c.tokens, out.data(), isa);
    EXPECT_EQ(out.back(), -7.0f);  // nothing is written behind the rows
    for (size_t at = 0; at < sums; ++at) {
      const float* x = rows.data() + at / c.components * c.dim;
      const float* row = matrix.data() + at % c.components * c.dim;
      double sum = 0.0;
      double magnitude = 0.0;
      for (int d = 0; d < c.dim; ++d) {
        sum += double{x[d]} * row[d];
        magnitude += std::fabs(double{x[d]} * row[d]);
      }
      // Each of the dim products and sums is rounded once; tiles also round the
      // factors.
      const bool in_tiles =
          c.tokens % 16 == 0 && c.dim % 32 == 0 && isa == Isa::kAmx;
      const double rounding = in_tiles ? 0x1p-7 : c.dim * 0x1p-23;
      ASSERT_NEAR(out[at], sum, rounding * magnitude)
          << "components " << c.components << " dim " << c.dim << " sum " << at
          << " isa " << static_cast<int>(isa);
    }
  }
}

TEST(AnalysisMatrix, EveryIsaIsCloseToAPlainLoop) {
  std::mt19937 rng(1);
  for (int dim : {1, 7, 8, 24, 80, 128, 256}) {
    for (int components : {16, 32, 144, 256}) {
      for (int tokens : {0, 1, 7, 8, 9, 16, 17, 32, 48}) {
        ExpectCloseToAPlainLoop({components, dim, tokens}, &rng);
      }
    }
  }
}

// Values that bf16 rounds most: halfway between two, and just below the next.
TEST(AnalysisMatrix, TilesRoundToTheNearest) {
  constexpr int kDim = 32;
  const float halfway = 1.0f + 0x1p-8f;
  const float worst[] = {std::nextafter(halfway, 0.0f), halfway,
                         std::nextafter(halfway, 2.0f),
                         std::nextafter(1.0f + 0x1p-7f, 0.0f)};
  for (const float value : worst) {
    const AnalysisMatrix analysis(16, kDim,
                                  std::vector<float>(16 * kDim, value));
    for (const float x : worst) {
      const std::vector<float> rows(16 * kDim, x);
      const double sum = kDim * double{value} * x;
      for (Isa isa : IsasUnderTest()) {
        std::vector<float> out(16 * 16);
        analysis.Apply(rows.data(), 16, out.data(), isa);
        for (const float got : out) ASSERT_NEAR(got, sum, 0x1p-7 * sum);
      }
    }
  }
}

TEST(AnalysisMatrix, NormIsTheLargestSumOfMagnitudes) {
  std::vector<float> matrix(16 * 3);
  matrix[5 * 3 + 1] = -2.0f;
  matrix[5 * 3 + 2] = 0.5f;
  matrix[9 * 3] = 2.0f;
  EXPECT_EQ(AnalysisMatrix(16, 3, matrix).norm(), 2.5);
}

TEST(AnalysisMatrix, AValueThatIsNotFiniteAffectsItsTokenOnly) {
  constexpr int kDim = 32;
  const AnalysisMatrix analysis(16, kDim, std::vector<float>(16 * kDim, 0.5f));
  for (const int tokens : {11, 16}) {
    std::vector<float> rows(static_cast<size_t>(tokens) * kDim, 1.0f);
    rows[4 * kDim + 1] = std::numeric_limits<float>::quiet_NaN();
    rows[9 * kDim + 2] = std::numeric_limits<float>::infinity();
    for (Isa isa : IsasUnderTest()) {
      std::vector<float> out(static_cast<size_t>(tokens) * 16);
      analysis.Apply(rows.data(), tokens, out.data(), isa);
      for (int token = 0; token < tokens; ++token) {
        for (int c = 0; c < 16; ++c) {
          EXPECT_EQ(std::isfinite(out[token * 16 + c]),
                    token != 4 && token != 9);
        }
      }
    }
  }
}

TEST(AnalysisMatrixDeathTest, IsOfWholeBands) {
  const std::vector<float> values(17 * 4);
  EXPECT_DEATH(AnalysisMatrix(17, 4, values), "bands");
  EXPECT_DEATH(AnalysisMatrix(16, 4, values), "one value");
}

}  // namespace
}  // namespace kdn::codec
