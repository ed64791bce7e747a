#include "codec/transform/raw_tokens.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "codec/calibration/calibrator.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

constexpr Level kSteps3[] = {Level::kBase, Level::kBase1, Level::kBase2};
constexpr int kDim = 16;

std::vector<float> NormalRows(int tokens, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<size_t>(tokens) * kDim);
  for (float& value : rows) value = normal(rng);
  return rows;
}

std::vector<int32_t> From(int32_t first, int tokens) {
  std::vector<int32_t> positions(tokens);
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

// Moves a row to `distances` times the average distance of a normal row from
// zero.
void MoveTo(double distances, int token, std::vector<float>* rows) {
  const float value = static_cast<float>(distances);
  for (int d = 0; d < kDim; ++d) {
    (*rows)[static_cast<size_t>(token) * kDim + d] =
        d % 2 == 0 ? value : -value;
  }
}

const std::vector<float> kZeroMean(kDim, 0.0f);

// An attention sink is no farther than other tokens: many models give it a V
// close to zero.
TEST(RawTokens, TheTokenAtPositionZeroIsFarWhereverItsRowLies) {
  for (const double distances : {0.0, 1.0, 1e6}) {
    for (const int tokens : {1, kSinkTokensMin - 1, kSinkTokensMin, 256}) {
      std::vector<float> rows = NormalRows(tokens, 9);
      MoveTo(distances, 0, &rows);
      const bool far = tokens >= kSinkTokensMin;
      if (distances < 1e6 || far) {
        const std::vector<int> expected(far ? 1 : 0, 0);
        EXPECT_EQ(FarTokens(rows, kZeroMean, From(0, tokens)), expected);
      }
      if (distances < 1e6) {
        EXPECT_TRUE(FarTokens(rows, kZeroMean, From(7, tokens)).empty());
      }
    }
  }
}

TEST(RawTokens, AFirstTokenHasALowerLimit) {
  struct Case {
    double distances;
    int32_t position;  // of the first token
    bool is_far;
  };
  for (const Case& c : std::vector<Case>{{2.0, 1, false},
                                         {4.0, 1, true},
                                         {4.0, 3, true},
                                         {4.0, 4, false},
                                         {4.0, 5000, false},
                                         {8.0, 5000, true}}) {
    std::vector<float> rows = NormalRows(200, 1);
    MoveTo(c.distances, 0, &rows);
    const std::vector<int> expected(c.is_far ? 1 : 0, 0);
    EXPECT_EQ(FarTokens(rows, kZeroMean, From(c.position, 200)), expected)
        << c.distances << " at " << c.position;
  }
}

TEST(RawTokens, NormalRowsAreNotFarWhateverTheirScale) {
  for (const float scale : {1e-41f, 1e-30f, 1.0f, 1e30f}) {
    for (int tokens : {1, 2, 5, 256, 1500}) {
      std::vector<float> rows = NormalRows(tokens, 2);
      for (float& value : rows) value *= scale;
      EXPECT_TRUE(FarTokens(rows, kZeroMean, From(1, tokens)).empty());
      EXPECT_TRUE(CentreWithoutFar(rows, kDim, From(1, tokens)).far.empty());
    }
  }
}

TEST(RawTokens, OnlyTheFarthestUpToTheLimitAreFar) {
  for (int tokens : {9, 100, 256, 640}) {
    const int most = FarTokensMax(tokens);
    std::vector<float> rows = NormalRows(tokens, 3);
    std::vector<int> expected;
    // Later tokens are farther.
    for (int token = tokens - 1; token > tokens / 2; --token) {
      MoveTo(10.0 + token, token, &rows);
      if (static_cast<int>(expected.size()) < most) {
        expected.insert(expected.begin(), token);
      }
    }
    EXPECT_EQ(FarTokens(rows, kZeroMean, From(1, tokens)), expected);
  }
}

TEST(RawTokens, FartherTokensDoNotHideFarTokens) {
  constexpr int kTokens = 256;
  std::vector<float> rows = NormalRows(kTokens, 4);
  const CentredRows before = CentreWithoutFar(rows, kDim, From(0, kTokens));
  // The row at 1e6 moves the mean by 1e6 / 256: a row at 100 then looks like
  // all others.
  for (const auto& [token, distances] :
       std::vector<std::pair<int, double>>{{0, 1e6}, {60, 2e4}, {90, 100.0}}) {
    MoveTo(distances, token, &rows);
  }
  const CentredRows centred = CentreWithoutFar(rows, kDim, From(0, kTokens));
  EXPECT_EQ(centred.far, (std::vector<int>{0, 60, 90}));
  for (int d = 0; d < kDim; ++d) {
    EXPECT_NEAR(centred.mean[d], before.mean[d], 0.05);
  }
}

// Tests with one chunk, with a calibration or without.
class RawTokensTest : public testing::TestWithParam<bool> {
 protected:
  RawTokensTest() {
    options_.shape = {.layers = 1,
                      .kv_heads = 3,
                      .tokens = 256,
                      .head_dim = 32,
                      .dtype = Dtype::kBf16};
    options_.rotary_dim = 0;  // rows come back bit for bit
    options_.first_position = 0;
    options_.levels = LevelSet::Of(Level::kBase2).WithRefined();
  }

  std::shared_ptr<const Calibration> calibration() const {
    return GetParam() ? MadeCalibration(GeometryOf(options_.shape))
                      : Calibration::Uncalibrated(GeometryOf(options_.shape));
  }
  KvBuffer Random(uint32_t seed) const {
    std::mt19937 rng(seed);
    KvBuffer kv(options_.shape, Layout::kTokenMajor);
    kv.FillRandom(&rng);
    return kv;
  }
  // Multiplies a token's rows, in all heads, by `factor`.
  void Enlarge(int token, float factor, KvBuffer* kv) const {
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < options_.shape.kv_heads; ++head) {
        const std::vector<float> row = kv->Row(0, part, head, token);
        for (int d = 0; d < options_.shape.head_dim; ++d) {
          kv->Set(0, part, head, token, d, factor * row[d]);
        }
      }
    }
  }
  KvBuffer Coded(const KvBuffer& kv, Level level) const {
    const ObjectHeader header = HeaderOf(options_);
    const auto object = EncodeWith(calibration(), header, kv.view());
    KvBuffer decoded(options_.shape, Layout::kTokenMajor);
    EXPECT_TRUE(DecodeAllWith(calibration(), object, level, header.positions,
                              decoded.view())
                    .ok());
    return decoded;
  }
  std::vector<float> RowsOf(const KvBuffer& kv, int token) const {
    std::vector<float> rows;
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < options_.shape.kv_heads; ++head) {
        const std::vector<float> row = kv.Row(0, part, head, token);
        rows.insert(rows.end(), row.begin(), row.end());
      }
    }
    return rows;
  }
  // The sum of squared errors of the tokens that are not in `left_out`.
  double ErrorOf(const KvBuffer& kv, const KvBuffer& decoded,
                 const std::set<int>& left_out) const {
    double squares = 0;
    for (int token = 0; token < options_.shape.tokens; ++token) {
      if (left_out.count(token) > 0) continue;
      const std::vector<float> a = RowsOf(kv, token);
      const std::vector<float> b = RowsOf(decoded, token);
      for (size_t i = 0; i < a.size(); ++i) {
        squares += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
      }
    }
    return squares;
  }

  ChunkOptions options_;
};

TEST_P(RawTokensTest, ASinkIsExactAndTheOthersAreAsGoodAsWithoutIt) {
  for (const float factor : {4.0f, 100.0f, 1e6f}) {
    const KvBuffer plain = Random(5);
    KvBuffer with_sink = Random(5);
    Enlarge(0, factor, &with_sink);
    for (Level level : kSteps3) {
      const KvBuffer decoded = Coded(with_sink, level);
      EXPECT_EQ(RowsOf(decoded, 0), RowsOf(with_sink, 0)) << factor;
      const double without = ErrorOf(plain, Coded(plain, level), {0});
      EXPECT_LT(ErrorOf(with_sink, decoded, {0}), 1.02 * without)
          << factor << " " << Name(level);
    }
  }
}

// Far tokens come back bit for bit, and the other tokens are as exact as if no
// token were far.
TEST_P(RawTokensTest, AnyFarTokensAreExactAndDoNotAffectTheOthers) {
  std::mt19937 rng(6);
  for (uint32_t round = 0; round < 20; ++round) {
    options_.shape.tokens = 100 + static_cast<int>(rng() % 300);
    options_.first_position = static_cast<int>(rng() % 3);
    const KvBuffer plain = Random(round);
    KvBuffer kv = Random(round);
    std::set<int> far;
    const size_t count = 1 + rng() % FarTokensMax(options_.shape.tokens);
    while (far.size() < count) {
      const int token = static_cast<int>(rng() % options_.shape.tokens);
      if (!far.insert(token).second) continue;
      Enlarge(token, std::pow(10.0f, 2.0f + static_cast<float>(rng() % 4)),
              &kv);
    }
    for (Level level : kSteps3) {
      const KvBuffer decoded = Coded(kv, level);
      for (const int token : far) {
        EXPECT_EQ(RowsOf(decoded, token), RowsOf(kv, token)) << token;
      }
      EXPECT_LT(ErrorOf(kv, decoded, far),
                1.02 * ErrorOf(plain, Coded(plain, level), far))
          << "round " << round << " " << Name(level);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Calibrated, RawTokensTest, testing::Bool());

// Far tokens do not change a calibration.
TEST(RawTokens, DoNotChangeACalibration) {
  ModelSpec spec;
  spec.name = "tiny";
  spec.num_layers = 1;
  spec.num_kv_heads = 2;
  spec.head_dim = kDim;
  spec.dtype = Dtype::kFp32;
  spec.weights_digest = "none";
  spec.tokenizer_digest = "none";
  spec.rope.rotary_dim = kDim;
  constexpr int kTokens = 400;
  const KvShape shape = ShapeOf(spec, kTokens);
  const std::set<int> far = {0, 2, 77, 300};  // 0 is at position 1
  KvShape rest_shape = shape;
  rest_shape.tokens -= static_cast<int>(far.size());
  std::mt19937 rng(8);
  KvBuffer all(shape, Layout::kTokenMajor);
  all.FillRandom(&rng);
  KvBuffer rest(rest_shape, Layout::kTokenMajor);
  std::vector<int32_t> rest_positions;
  for (int token = 0; token < kTokens; ++token) {
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < spec.num_kv_heads; ++head) {
        const std::vector<float> row = all.Row(0, part, head, token);
        for (int d = 0; d < kDim; ++d) {
          if (far.count(token) > 0) {
            all.Set(0, part, head, token, d, 50.0f * row[d]);
          } else {
            rest.Set(0, part, head, static_cast<int>(rest_positions.size()), d,
                     row[d]);
          }
        }
      }
    }
    if (far.count(token) == 0) rest_positions.push_back(token + 1);
  }
  const auto calibrated = [&spec](const KvBuffer& kv,
                                  absl::Span<const int32_t> positions) {
    auto calibrator = Calibrator::Create(spec);
    EXPECT_TRUE(calibrator.ok()) << calibrator.status();
    EXPECT_TRUE(calibrator->Add(kv.view(), positions).ok());
    const auto stored = calibrator->Finish({});
    EXPECT_TRUE(stored.ok()) << stored.status();
    return WriteCalibration(*stored);
  };
  EXPECT_EQ(calibrated(all, From(1, kTokens)),
            calibrated(rest, rest_positions));
}

}  // namespace
}  // namespace kdn::codec
