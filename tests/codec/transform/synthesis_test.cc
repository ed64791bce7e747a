#include "codec/transform/synthesis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "codec/calibration/calibration.h"
#include "tests/codec/supported_isas.h"

namespace kdn::codec {
namespace {

std::vector<int8_t> AnyBytes(size_t count, std::mt19937* rng) {
  std::vector<int8_t> bytes(count);
  for (int8_t& byte : bytes) byte = static_cast<int8_t>((*rng)());
  return bytes;
}

// The sums by their definition, with zeros from dim on.
std::vector<int32_t> Plain(const std::vector<int8_t>& matrix, int dim,
                           int components, int padded_dim,
                           const std::vector<int8_t>& rows, int tokens,
                           int used) {
  std::vector<int32_t> out(static_cast<size_t>(tokens) * padded_dim, 0);
  for (int t = 0; t < tokens; ++t) {
    for (int d = 0; d < dim; ++d) {
      for (int c = 0; c < used; ++c) {
        out[static_cast<size_t>(t) * padded_dim + d] +=
            matrix[static_cast<size_t>(d) * components + c] *
            rows[static_cast<size_t>(t) * components + c];
      }
    }
  }
  return out;
}

void ExpectPlainSums(const std::vector<int8_t>& matrix, int dim, int components,
                     const std::vector<int8_t>& values, int tokens) {
  const SynthesisMatrix synthesis(dim, components, matrix);
  for (int used = 0; used <= components; used += 16) {
    std::vector<int8_t> rows = values;
    for (int t = 0; t < tokens; ++t) {
      std::fill_n(rows.begin() + static_cast<size_t>(t) * components + used,
                  components - used, int8_t{0});
    }
    const std::vector<int32_t> expected = Plain(
        matrix, dim, components, synthesis.padded_dim(), rows, tokens, used);
    // Rows behind the last token make no difference.
    rows.resize(rows.size() + (SynthesisMatrix::kTileTokens - 1) * components,
                int8_t{77});
    for (Isa isa : IsasUnderTest()) {
      std::vector<int32_t> sums;
      synthesis.Multiply(
          {.low = rows.data(), .stride = components, .used = used}, tokens, isa,
          [&](int token, const int32_t* of_token) {
            ASSERT_EQ(token * synthesis.padded_dim(),
                      static_cast<int>(sums.size()));
            sums.insert(sums.end(), of_token,
                        of_token + synthesis.padded_dim());
          });
      ASSERT_EQ(sums, expected)
          << "dim " << dim << " components " << components << " tokens "
          << tokens << " used " << used << " isa " << static_cast<int>(isa);
    }
  }
}

TEST(SynthesisMatrix, TheNormIsTheLargestRowOfMagnitudes) {
  std::vector<int8_t> matrix(3 * 16, 0);
  EXPECT_EQ(SynthesisMatrix(3, 16, matrix).norm(), 0);
  std::fill_n(matrix.begin() + 16, 16, int8_t{-128});
  matrix[2] = 100;
  EXPECT_EQ(SynthesisMatrix(3, 16, matrix).norm(), 16 * 128);
}

TEST(SynthesisMatrix, EveryIsaGivesTheSumsOfAPlainLoop) {
  std::mt19937 rng(1);
  for (int dim : {1, 3, 8, 15, 16, 17, 24, 80, 96, 127, 128, 250, 256}) {
    for (int components : {16, 32, 80, 128, 256}) {
      const auto matrix = AnyBytes(static_cast<size_t>(dim) * components, &rng);
      for (int tokens : {0, 1, 2, 3, 4, 5, 9, 16, 32, 35}) {
        ExpectPlainSums(
            matrix, dim, components,
            AnyBytes(static_cast<size_t>(tokens) * components, &rng), tokens);
      }
    }
  }
}

TEST(SynthesisMatrix, TheLargestSumsAreExact) {
  for (int8_t entry : {int8_t{-128}, int8_t{127}}) {
    for (int8_t value : {int8_t{-128}, int8_t{127}}) {
      ExpectPlainSums(std::vector<int8_t>(256 * 256, entry), 256, 256,
                      std::vector<int8_t>(6 * 256, value), 6);
    }
  }
}

TEST(SynthesisMatrix, HighPartsCountAsOftenAsTheRadixSays) {
  std::mt19937 rng(3);
  for (int dim : {8, 128, 384}) {
    for (int components : {16, 64, 128, 384}) {
      const auto matrix = AnyBytes(static_cast<size_t>(dim) * components, &rng);
      const SynthesisMatrix synthesis(dim, components, matrix);
      for (int wide : {16, 64}) {
        if (wide > components) continue;
        constexpr int kTokens = 21;
        const int stride = components + wide;
        auto rows = AnyBytes(static_cast<size_t>(32) * stride, &rng);
        for (int used_high : {0, 16, wide}) {
          for (int t = 0; t < 32; ++t) {
            std::fill_n(rows.begin() + t * stride + components + used_high,
                        wide - used_high, int8_t{0});
          }
          for (Isa isa : IsasUnderTest()) {
            synthesis.Multiply(
                {rows.data(), stride, components, used_high}, kTokens, isa,
                [&](int token, const int32_t* sums) {
                  const int8_t* row = rows.data() + token * stride;
                  for (int d = 0; d < dim; ++d) {
                    int expected = 0;
                    for (int c = 0; c < components; ++c) {
                      const int high = c < wide ? row[components + c] : 0;
                      expected += matrix[d * components + c] *
                                  (row[c] + kHighRadix * high);
                    }
                    ASSERT_EQ(sums[d], expected)
                        << "dim " << dim << " components " << components
                        << " high " << used_high << " isa "
                        << static_cast<int>(isa);
                  }
                });
          }
        }
      }
    }
  }
}

// The values of a test: any bytes, few and small values, or extreme values.
std::vector<int8_t> DrawValues(int kind, size_t count, std::mt19937* rng) {
  if (kind == 0) return AnyBytes(count, rng);
  std::vector<int8_t> values(count);
  for (int8_t& value : values) {
    const uint32_t bits = (*rng)();
    if (kind == 1) {
      value = bits % 3 == 0 ? static_cast<int8_t>(bits >> 8 & 31) - 16 : 0;
    } else {
      value = bits % 2 == 0 ? int8_t{127} : int8_t{-128};
    }
  }
  return values;
}

TEST(SynthesisMatrix, EveryIsaGivesThePlainSumsOfRandomShapes) {
  std::mt19937 rng(4);
  const auto draw = [&](int least, int most) {
    return least + static_cast<int>(rng() % (most - least + 1));
  };
  for (int i = 0; i < 60; ++i) {
    const int dim = draw(16, 512);
    const int components = 16 * draw(1, 32);
    const int used = 16 * draw(0, components / 16);
    const int wide = 16 * draw(0, components / 16);
    const int used_high = 16 * draw(0, wide / 16);
    const int tokens = draw(1, 40);
    const int stride = components + wide;
    const auto matrix =
        DrawValues(draw(0, 2), static_cast<size_t>(dim) * components, &rng);
    auto rows = DrawValues(i % 3, size_t{48} * stride, &rng);
    for (int t = 0; t < tokens; ++t) {
      int8_t* row = rows.data() + static_cast<size_t>(t) * stride;
      std::fill_n(row + used, components - used, int8_t{0});
      std::fill_n(row + components + used_high, wide - used_high, int8_t{0});
    }
    std::vector<int32_t> expected(static_cast<size_t>(tokens) * dim, 0);
    for (int t = 0; t < tokens; ++t) {
      const int8_t* row = rows.data() + static_cast<size_t>(t) * stride;
      for (int d = 0; d < dim; ++d) {
        for (int c = 0; c < components; ++c) {
          const int high = c < wide ? row[components + c] : 0;
          expected[t * dim + d] +=
              matrix[d * components + c] * (row[c] + kHighRadix * high);
        }
      }
    }
    const SynthesisMatrix synthesis(dim, components, matrix);
    for (const Isa isa : IsasUnderTest()) {
      std::vector<int32_t> sums;
      synthesis.Multiply({rows.data(), stride, used, used_high}, tokens, isa,
                         [&](int, const int32_t* of_token) {
                           sums.insert(sums.end(), of_token, of_token + dim);
                         });
      ASSERT_EQ(sums, expected)
          << "shape " << i << ": dim " << dim << " components " << components
          << " used " << used << " high " << used_high << " tokens " << tokens
          << " isa " << static_cast<int>(isa);
    }
  }
}

TEST(SynthesisMatrix, AtReturnsTheEntries) {
  std::mt19937 rng(2);
  for (int dim : {5, 16, 33}) {
    const int components = 48;
    const auto matrix = AnyBytes(static_cast<size_t>(dim) * components, &rng);
    const SynthesisMatrix synthesis(dim, components, matrix);
    EXPECT_EQ(synthesis.dim(), dim);
    EXPECT_EQ(synthesis.components(), components);
    EXPECT_EQ(synthesis.padded_dim(), (dim + 15) / 16 * 16);
    for (int d = 0; d < dim; ++d) {
      for (int c = 0; c < components; ++c) {
        EXPECT_EQ(synthesis.At(d, c),
                  matrix[static_cast<size_t>(d) * components + c]);
      }
    }
  }
}

TEST(SynthesisMatrixDeathTest, IsOfAtMost32WholeBands) {
  const std::vector<int8_t> values(528 * 4);
  const absl::Span<const int8_t> all(values);
  EXPECT_DEATH(SynthesisMatrix(4, 17, all.first(68)), "bands");
  EXPECT_DEATH(SynthesisMatrix(4, 528, all), "bands");
  EXPECT_DEATH(SynthesisMatrix(0, 16, {}), "bands");
  EXPECT_DEATH(SynthesisMatrix(4, 16, all.first(63)), "one value");
}

}  // namespace
}  // namespace kdn::codec
