#include "codec/calibration/calibrator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

constexpr int kHeads = 2;
constexpr int kDim = 32;
constexpr int kMatrices = 2 * kHeads;  // of K and V, and all heads

ModelSpec Spec() {
  ModelSpec spec;
  spec.name = "normal";
  spec.num_layers = 1;
  spec.num_kv_heads = kHeads;
  spec.head_dim = kDim;
  spec.dtype = Dtype::kFp32;
  spec.weights_digest = "none";
  spec.tokenizer_digest = "none";
  return spec;
}

std::vector<int32_t> Positions(int tokens) {
  std::vector<int32_t> positions(tokens);
  std::iota(positions.begin(), positions.end(), 1);
  return positions;
}

KvBuffer Normal(int tokens, uint32_t seed) {
  KvBuffer kv(ShapeOf(Spec(), tokens), Layout::kTokenMajor);
  std::mt19937 rng(seed);
  kv.FillRandom(&rng);
  return kv;
}

absl::StatusOr<StoredCalibration> Calibrated(
    const Calibrator::Options& options) {
  auto calibrator = Calibrator::Create(Spec());
  EXPECT_TRUE(calibrator.ok()) << calibrator.status();
  EXPECT_TRUE(calibrator->Add(Normal(2000, 1).view(), Positions(2000)).ok());
  return calibrator->Finish(options);
}

// The mean squared error at base of each dimension, of K or V of one head, on
// other values than those that calibrated.
class Errors {
 public:
  explicit Errors(const Calibrator::Options& options)
      : kv_(Normal(256, 2)), decoded_(kv_.shape(), Layout::kTokenMajor) {
    const auto stored = Calibrated(options);
    EXPECT_TRUE(stored.ok()) << stored.status();
    const auto calibration =
        MakeCalibration(CalibrationId(std::array<uint8_t, 32>{1}), *stored);
    EXPECT_TRUE(calibration.ok()) << calibration.status();
    ChunkOptions chunk;
    chunk.shape = kv_.shape();
    chunk.rotary_dim = 0;
    chunk.levels = LevelSet::Of(Level::kBase);
    const ObjectHeader header = HeaderOf(chunk);
    const auto object = EncodeWith(*calibration, header, kv_.view());
    EXPECT_TRUE(DecodeAllWith(*calibration, object, Level::kBase,
                              header.positions, decoded_.view())
                    .ok());
  }
  double Of(KvPart part, int head, int begin = 0, int end = kDim) const {
    double squares = 0;
    for (int token = 0; token < kv_.shape().tokens; ++token) {
      const auto exact = kv_.Row(0, part, head, token);
      const auto got = decoded_.Row(0, part, head, token);
      for (int d = begin; d < end; ++d) {
        squares += std::pow(double{exact[d]} - got[d], 2);
      }
    }
    return squares / (kv_.shape().tokens * (end - begin));
  }

 private:
  KvBuffer kv_;
  KvBuffer decoded_;
};

// Reverse water-filling: every head's error costs the same, as long as errors
// are much smaller than the values.
TEST(Calibrator, AHeadsErrorIsInverseToItsWeight) {
  Calibrator::Options options;
  options.base_bits = 2.5;
  options.weights = {1, 1.5, 2.5, 1.5};
  const Errors errors(options);
  const double first = errors.Of(KvPart::kK, 0);
  EXPECT_NEAR(first / errors.Of(KvPart::kK, 1), 1.5, 0.15);
  EXPECT_NEAR(first / errors.Of(KvPart::kV, 0), 2.5, 0.25);
  EXPECT_NEAR(first / errors.Of(KvPart::kV, 1), 1.5, 0.15);
}

TEST(Calibrator, DirectionsThatCostMoreHaveSmallerErrors) {
  std::vector<double> metric(size_t{kDim} * kDim);
  for (int d = 0; d < kDim; ++d) {
    metric[static_cast<size_t>(d) * kDim + d] = d < kDim / 2 ? 9 : 1;
  }
  std::vector<double> flat(metric.size());
  for (int d = 0; d < kDim; ++d) flat[static_cast<size_t>(d) * kDim + d] = 7;
  Calibrator::Options options;
  options.base_bits = 2.5;
  options.metrics = {metric, flat, flat, flat};
  const Errors errors(options);
  EXPECT_NEAR(errors.Of(KvPart::kK, 0, kDim / 2, kDim) /
                  errors.Of(KvPart::kK, 0, 0, kDim / 2),
              9, 2.5);
  EXPECT_NEAR(errors.Of(KvPart::kK, 1, kDim / 2, kDim) /
                  errors.Of(KvPart::kK, 1, 0, kDim / 2),
              1, 0.2);
}

TEST(Calibrator, RefusesWeightsAndMetricsOfAnotherShape) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  for (const auto& weights : std::vector<std::vector<double>>{{1},
                                                              {1, 1, 1, 1, 1},
                                                              {1, 1, 1, 0},
                                                              {1, 1, 1, -1},
                                                              {1, 1, 1, nan},
                                                              {1, 1, 1, inf}}) {
    Calibrator::Options options;
    options.weights = weights;
    EXPECT_EQ(Calibrated(options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  const std::vector<double> good(size_t{kDim} * kDim, 1.0);
  std::vector<double> bad = good;
  bad.back() = nan;
  for (const auto& metrics : std::vector<std::vector<std::vector<double>>>{
           {good}, {good, good, good, {}}, {good, good, good, bad}}) {
    Calibrator::Options options;
    options.metrics = metrics;
    EXPECT_EQ(Calibrated(options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  Calibrator::Options options;
  options.weights.assign(kMatrices, 2.0);
  options.metrics.assign(kMatrices, good);
  EXPECT_TRUE(Calibrated(options).ok());
}

// The importance of tokens, [KV head][token], that depends on an element of V.
std::vector<double> ImportanceOf(const KvBuffer& kv) {
  std::vector<double> importance;
  for (int head = 0; head < kHeads; ++head) {
    for (int token = 0; token < kv.shape().tokens; ++token) {
      importance.push_back(
          std::exp2(4.0 * kv.Row(0, KvPart::kV, head, token)[0]));
    }
  }
  return importance;
}

TEST(Calibrator, ImportantTokensHaveSmallerErrors) {
  auto calibrator = Calibrator::Create(Spec());
  ASSERT_TRUE(calibrator.ok());
  const KvBuffer sample = Normal(4000, 1);
  ASSERT_TRUE(
      calibrator->Add(sample.view(), Positions(4000), ImportanceOf(sample))
          .ok());
  Calibrator::Options fine;
  fine.base_bits = 2.5;
  const auto stored = calibrator->Finish(fine);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->streams[0].classes.size(), 5u);
  const auto calibration = ParseCalibration(WriteCalibration(*stored));
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  const KvBuffer kv = Normal(256, 2);
  KvBuffer decoded(kv.shape(), Layout::kTokenMajor);
  const ObjectHeader header = HeaderOf({.shape = kv.shape(),
                                        .rotary_dim = 0,
                                        .levels = LevelSet::Of(Level::kBase)});
  const auto object = EncodeWith(*calibration, header, kv.view());
  ASSERT_TRUE(DecodeAllWith(*calibration, object, Level::kBase,
                            header.positions, decoded.view())
                  .ok());
  const std::vector<double> importance = ImportanceOf(kv);
  double important = 0;
  double others = 0;
  int count[2] = {0, 0};
  for (int token = 1; token < 256; ++token) {
    double squares = 0;
    const auto exact = kv.Row(0, KvPart::kK, 0, token);
    const auto got = decoded.Row(0, KvPart::kK, 0, token);
    for (int d = 0; d < kDim; ++d) {
      squares += std::pow(double{exact[d]} - got[d], 2);
    }
    const bool is_important = importance[token] * importance[256 + token] > 1;
    (is_important ? important : others) += squares;
    ++count[is_important ? 0 : 1];
  }
  EXPECT_LT(2 * important / count[0], others / count[1]);
}

// All tokens have one class if the importance of few is known.
TEST(Calibrator, FewImportancesAreNotUsed) {
  auto calibrator = Calibrator::Create(Spec());
  ASSERT_TRUE(calibrator.ok());
  const KvBuffer few = Normal(20, 3);
  ASSERT_TRUE(
      calibrator->Add(few.view(), Positions(20), ImportanceOf(few)).ok());
  ASSERT_TRUE(calibrator->Add(Normal(2000, 1).view(), Positions(2000)).ok());
  const auto stored = calibrator->Finish({});
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->streams[0].classes.size(), 2u);
}

TEST(Calibrator, RefusesImportancesThatAreNoNumbersOrTooFew) {
  auto calibrator = Calibrator::Create(Spec());
  ASSERT_TRUE(calibrator.ok());
  const KvBuffer kv = Normal(30, 1);
  const std::vector<double> good = ImportanceOf(kv);
  for (const double bad : {-1.0, std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()}) {
    std::vector<double> importance = good;
    importance[7] = bad;
    EXPECT_EQ(calibrator->Add(kv.view(), Positions(30), importance).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(
      calibrator->Add(kv.view(), Positions(30), std::vector<double>(29)).code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(calibrator->tokens(), 0);
}

// KV that no model computes gives a calibration or an error, and no crash.
TEST(Calibrator, SurvivesKvThatNoModelComputes) {
  const std::vector<std::function<float(int, std::mt19937&)>> kinds = {
      [](int, std::mt19937&) { return 0.0f; },
      [](int, std::mt19937&) { return 3.0f; },
      [](int i, std::mt19937&) { return i % 2 == 0 ? 3.39e38f : -3.39e38f; },
      [](int, std::mt19937& r) { return r() % 2 == 0 ? 3.39e38f : -1e38f; },
      [](int i, std::mt19937&) { return i == 5 ? 1e30f : 1e-30f; }};
  for (size_t kind = 0; kind < kinds.size(); ++kind) {
    SCOPED_TRACE(kind);
    std::mt19937 random(kind);
    auto calibrator = Calibrator::Create(Spec());
    ASSERT_TRUE(calibrator.ok());
    KvBuffer kv(ShapeOf(Spec(), 600), Layout::kTokenMajor);
    int i = 0;
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < kHeads; ++head) {
        for (int token = 0; token < 600; ++token) {
          for (int d = 0; d < kDim; ++d) {
            kv.Set(0, part, head, token, d, kinds[kind](i++, random));
          }
        }
      }
    }
    std::vector<double> importance(kHeads * 600, 1.0);
    if (!calibrator->Add(kv.view(), Positions(600), importance).ok()) continue;
    const auto stored = calibrator->Finish({});
    if (!stored.ok()) continue;
    const auto made = ParseCalibration(WriteCalibration(*stored));
    EXPECT_TRUE(made.ok() || absl::IsDataLoss(made.status()) ||
                absl::IsInvalidArgument(made.status()))
        << made.status();
  }
}

// A sample of some tokens makes the tables, but all tokens make the transform.
TEST(Calibrator, CountsAllTokens) {
  auto calibrator = Calibrator::Create(Spec());
  ASSERT_TRUE(calibrator.ok());
  for (uint32_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(calibrator->Add(Normal(2000, i).view(), Positions(2000)).ok());
  }
  EXPECT_EQ(calibrator->tokens(), 20000);
  const auto stored = calibrator->Finish({});
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_TRUE(MakeCalibration(CalibrationId(), *stored).ok());
}

}  // namespace
}  // namespace kdn::codec
