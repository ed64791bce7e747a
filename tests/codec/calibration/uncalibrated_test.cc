// The built-in calibration, for models that were never calibrated.

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "codec/calibration/calibration.h"
#include "codec/transform/symbol_bands.h"
#include "kv/crc32c.h"
#include "tests/codec/supported_isas.h"

namespace kdn::codec {
namespace {

struct Case {
  int kv_heads;
  int head_dim;
  int dim;  // of one stream
};
constexpr Case kCases[] = {
    {1, 1, 1},     {1, 8, 8},     {3, 8, 24},    {1, 16, 16},  {6, 16, 96},
    {1, 24, 24},   {8, 32, 128},  {1, 80, 80},   {2, 80, 80},  {1, 96, 96},
    {1, 128, 128}, {4, 128, 128}, {1, 250, 250}, {2, 256, 256}};

std::shared_ptr<const Calibration> Made(const Case& c) {
  return Calibration::Uncalibrated(
      {.layers = 3, .kv_heads = c.kv_heads, .head_dim = c.head_dim});
}

// scale * synthesis * components, in double.
std::vector<double> Back(const StreamTransform& stream, const float* y) {
  std::vector<double> x(stream.dim(), 0.0);
  for (int d = 0; d < stream.dim(); ++d) {
    for (int c = 0; c < stream.components(); ++c) {
      x[d] += double{stream.scale} * stream.synthesis.At(d, c) * y[c];
    }
  }
  return x;
}

TEST(Uncalibrated, SynthesisUndoesAnalysis) {
  for (const Case& c : kCases) {
    const auto calibration = Made(c);
    const StreamTransform& stream = calibration->Of(2, KvPart::kV, 0);
    ASSERT_EQ(stream.dim(), c.dim);
    std::vector<float> unit(c.dim, 0.0f);
    std::vector<float> y(stream.components());
    for (int d = 0; d < c.dim; ++d) {
      unit[d] = 1.0f;
      for (Isa isa : IsasUnderTest()) {
        stream.analysis.Apply(unit.data(), 1, y.data(), isa);
        const std::vector<double> x = Back(stream, y.data());
        for (int i = 0; i < c.dim; ++i) {
          ASSERT_NEAR(x[i], unit[i], 1e-5) << "dim " << c.dim << " " << d;
        }
      }
      unit[d] = 0.0f;
    }
  }
}

// The transform does not change lengths, so an error of a component is an equal
// error of the row.
TEST(Uncalibrated, KeepsLengthsWithinATenth) {
  std::mt19937 rng(4);
  std::normal_distribution<float> normal;
  for (const Case& c : kCases) {
    const auto calibration = Made(c);
    const StreamTransform& stream = calibration->Of(0, KvPart::kK, 0);
    double before = 0.0;
    double after = 0.0;
    std::vector<float> row(c.dim);
    std::vector<float> y(stream.components());
    for (int token = 0; token < 50; ++token) {
      for (float& value : row) {
        value = normal(rng);
        before += value * value;
      }
      stream.analysis.Apply(row.data(), 1, y.data(), BestIsa());
      for (float value : y) after += value * value;
    }
    EXPECT_NEAR(std::sqrt(after / before), 1.0, 0.1) << c.dim;
  }
}

TEST(Uncalibrated, HasNoMeanAndCodesEveryBandAtEveryLevel) {
  for (const Case& c : kCases) {
    const auto calibration = Made(c);
    EXPECT_TRUE(calibration->id().is_zero());
    EXPECT_EQ(calibration->geometry(),
              (Calibration::Geometry{3, c.kv_heads, c.head_dim}));
    const StreamTransform& stream = calibration->Of(0, KvPart::kK, 0);
    EXPECT_TRUE(stream.mean.empty());
    ASSERT_EQ(stream.classes[0].bands.size(),
              static_cast<size_t>((c.dim + 15) / kBandComponents));
    for (const auto& band : stream.classes[0].bands) {
      for (const BandStep& step : band) {
        ASSERT_NE(step.mode, BandMode::kAbsent);
        for (uint8_t table : step.tables) {
          ASSERT_LT(table, calibration->tables().size());
          EXPECT_GT(
              calibration->tables()[table].frequency(ZeroSymbol(step.mode)),
              0u);
        }
      }
    }
  }
}

TEST(Uncalibrated, OneTransformServesEveryStream) {
  const auto calibration = Made({4, 128, 128});
  EXPECT_EQ(&calibration->Of(0, KvPart::kK, 0),
            &calibration->Of(2, KvPart::kV, 3));
}

// Objects name the built-in calibration by a zero id, so it must never change.
TEST(Uncalibrated, IsTheSameEverywhere) {
  uint32_t crc = 0;
  const auto add = [&crc](const auto& value) {
    crc = ExtendCrc32c(
        crc, {reinterpret_cast<const std::byte*>(&value), sizeof(value)});
  };
  for (const Case& c : kCases) {
    const auto calibration = Made(c);
    const StreamTransform& stream = calibration->Of(0, KvPart::kK, 0);
    add(stream.scale);
    for (int d = 0; d < stream.dim(); ++d) {
      for (int k = 0; k < stream.components(); ++k) {
        add(stream.synthesis.At(d, k));
      }
    }
    for (const BandStep& step : stream.classes[0].bands.front()) {
      add(step.mode);
      add(step.tables[0]);
      add(step.tables[1]);
      add(step.shrink);
    }
    for (const RansTable& table : calibration->tables()) {
      for (int symbol = 0; symbol < 256; ++symbol) {
        add(table.frequency(static_cast<uint8_t>(symbol)));
      }
    }
  }
  EXPECT_EQ(crc, 1469765300u);
}

TEST(UncalibratedDeathTest, RefusesMoreDimensionsThanATransformHas) {
  EXPECT_DEATH(Made({1, kTransformDimMax + 1, 0}), "dimensions");
}

}  // namespace
}  // namespace kdn::codec
