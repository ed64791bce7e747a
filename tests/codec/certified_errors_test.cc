// The errors in an object's index are the errors of the decoded rows, and bound
// those of rows that are delivered at other positions (docs/formats.md).

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <functional>
#include <map>

#include "codec/format/stream_layout.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

struct Difference {
  double max = 0.0;
  double rms = 0.0;
  bool is_finite = true;
};

Difference DifferenceOf(const KvBuffer& engine, const KvBuffer& decoded,
                        const StreamId& id) {
  const KvShape& shape = engine.shape();
  const int heads = StreamGrid(shape).HeadsOf(id.part, id.level);
  Difference difference;
  double squares = 0.0;
  for (int i = 0; i < heads; ++i) {
    const int head = id.head_group * heads + i;
    for (int token = 0; token < shape.tokens; ++token) {
      const auto a = engine.Row(id.layer, id.part, head, token);
      const auto b = decoded.Row(id.layer, id.part, head, token);
      for (size_t d = 0; d < a.size(); ++d) {
        const double error = std::fabs(double{a[d]} - b[d]);
        if (!std::isfinite(b[d])) difference.is_finite = false;
        difference.max = std::max(difference.max, error);
        squares += error * error;
      }
    }
  }
  difference.rms =
      std::sqrt(squares / (double{1} * heads * shape.tokens * shape.head_dim));
  return difference;
}

void ExpectErrorsToHold(const std::shared_ptr<const Calibration>& calibration,
                        const ChunkOptions& options, const KvBuffer& kv) {
  const ObjectHeader header = HeaderOf(options);
  const auto object = EncodeWith(calibration, header, kv.view());
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok()) << index.status();
  for (Level level : LevelsOf(kApartLevels)) {
    SCOPED_TRACE(Name(level));
    KvBuffer decoded(options.shape, Layout::kHeadMajor);
    ASSERT_TRUE(DecodeAllWith(calibration, object, level, header.positions,
                              decoded.view())
                    .ok());
    for (int layer = 0; layer < options.shape.layers; ++layer) {
      for (const StreamId& id : StreamsOf(options.shape, {layer, level})) {
        SCOPED_TRACE(Name(id));
        const StreamEntry& entry = index->Entry(id);
        const Difference real = DifferenceOf(kv, decoded, id);
        if (!real.is_finite || real.max > FLT_MAX) {
          EXPECT_EQ(entry.error_max, FLT_MAX);
          EXPECT_EQ(entry.error_rms, FLT_MAX);
          continue;
        }
        EXPECT_NEAR(entry.error_max, real.max, 1e-7 * real.max);
        EXPECT_NEAR(entry.error_rms, real.rms, 1e-5 * real.rms + FLT_TRUE_MIN);
        if (level == Level::kLossless) {
          EXPECT_EQ(entry.error_max, 0.0f);
          EXPECT_EQ(entry.error_rms, 0.0f);
        }
      }
    }
  }
}

// K of one stream, turned exactly from the positions of its object to `wanted`.
std::vector<double> TurnedExactly(const KvBuffer& engine,
                                  const ObjectHeader& header, int layer,
                                  int head, int token, int32_t wanted) {
  const auto row = engine.Row(layer, KvPart::kK, head, token);
  std::vector<double> turned(row.begin(), row.end());
  const RopeTable rope(header.rope);
  const bool is_neox = header.rope.pairing == RopePairing::kNeoX;
  for (int pair = 0; pair < rope.pairs(); ++pair) {
    const float frequency = rope.inv_freq()[pair];
    const double angle =
        double{static_cast<float>(wanted) * frequency} -
        double{static_cast<float>(header.positions[token]) * frequency};
    const int x = is_neox ? pair : 2 * pair;
    const int y = is_neox ? pair + rope.pairs() : 2 * pair + 1;
    turned[x] = row[x] * std::cos(angle) - row[y] * std::sin(angle);
    turned[y] = row[y] * std::cos(angle) + row[x] * std::sin(angle);
  }
  return turned;
}

// The longest pair of elements that turn together, in one head of K. An element
// that does not turn is a pair with 0.
double LongestPair(const KvBuffer& engine, const ObjectHeader& header,
                   int layer, int head) {
  double longest = 0.0;
  const int pairs = header.rope.rotary_dim / 2;
  const bool is_neox = header.rope.pairing == RopePairing::kNeoX;
  for (int token = 0; token < engine.shape().tokens; ++token) {
    const auto row = engine.Row(layer, KvPart::kK, head, token);
    for (int pair = 0; pair < pairs; ++pair) {
      const int x = is_neox ? pair : 2 * pair;
      const int y = is_neox ? pair + pairs : 2 * pair + 1;
      longest = std::max(longest, std::hypot(double{row[x]}, double{row[y]}));
    }
    for (size_t i = 2 * pairs; i < row.size(); ++i) {
      longest = std::max(longest, std::fabs(double{row[i]}));
    }
  }
  return longest;
}

// Delivers K at positions other than those at which it was computed.
void ExpectErrorsToBoundMovedRows(
    const std::shared_ptr<const Calibration>& calibration,
    const ChunkOptions& options, const KvBuffer& kv) {
  const ObjectHeader header = HeaderOf(options);
  const auto object = EncodeWith(calibration, header, kv.view());
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok()) << index.status();
  std::vector<int32_t> wanted;
  for (const int32_t position : header.positions) {
    wanted.push_back(7919 + 3 * position);
  }
  const KvShape& shape = options.shape;
  const double rounding =
      std::map<Dtype, double>{{Dtype::kBf16, 0x1p-8},
                              {Dtype::kFp16, 0x1p-11},
                              {Dtype::kFp32, 0x1p-24}}[shape.dtype];
  for (Level level : LevelsOf(kApartLevels)) {
    KvBuffer decoded(shape, Layout::kHeadMajor);
    ASSERT_TRUE(
        DecodeAllWith(calibration, object, level, wanted, decoded.view()).ok());
    for (const StreamId& id : StreamsOf(shape, {0, level})) {
      if (id.part != KvPart::kK) continue;
      SCOPED_TRACE(Name(id));
      const StreamEntry& entry = index->Entry(id);
      const int heads = StreamGrid(shape).HeadsOf(id.part, id.level);
      double longest = 0.0, largest = 0.0, squares = 0.0;
      for (int head = id.head_group * heads; head < (id.head_group + 1) * heads;
           ++head) {
        longest = std::max(longest, LongestPair(kv, header, 0, head));
        for (int token = 0; token < shape.tokens; ++token) {
          const auto exact =
              TurnedExactly(kv, header, 0, head, token, wanted[token]);
          const auto row = decoded.Row(0, KvPart::kK, head, token);
          for (size_t d = 0; d < exact.size(); ++d) {
            const double error = std::fabs(row[d] - exact[d]);
            largest = std::max(largest, error);
            squares += error * error;
          }
        }
      }
      longest += std::sqrt(2.0) * entry.error_max;
      EXPECT_LE(largest,
                std::sqrt(2.0) * (entry.error_max + rounding * longest) +
                    (rounding + 0x1p-20) * longest);
      EXPECT_LE(std::sqrt(squares /
                          (double{1} * heads * shape.tokens * shape.head_dim)),
                entry.error_rms + (2 * rounding + 0x1p-20) * longest);
    }
  }
}

// The value of (head, token, dimension).
using Values = std::function<double(int, int, int, std::mt19937*)>;
struct Kind {
  const char* name;
  Values values;
  // Multiplies the values in fp16, to keep them inside its range.
  double fp16_scale = 1.0;
  // Whether every dtype can hold the values at any position, and as normal
  // numbers, so that rounding is relative to them.
  bool may_move = true;
};

double Normal(std::mt19937* rng) {
  return std::normal_distribution<double>()(*rng);
}

// The ratio of two normal values, whose variance is infinite. Limited to the
// range of fp16.
double HeavyTailed(std::mt19937* rng) {
  return std::clamp(Normal(rng) / Normal(rng), -3e4, 3e4);
}

const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = {
      {"gaussian",
       [](int, int, int, std::mt19937* rng) { return Normal(rng); }},
      {"heavy tails",
       [](int, int, int, std::mt19937* rng) { return HeavyTailed(rng); }},
      {"constant", [](int, int, int, std::mt19937*) { return 0.7; }},
      {"zeros", [](int, int, int, std::mt19937*) { return 0.0; }},
      {"tiny",
       [](int, int, int, std::mt19937* rng) { return 1e-30 * Normal(rng); },
       1.0, false},
      {"subnormal",
       [](int, int, int, std::mt19937* rng) { return 1e-41 * Normal(rng); },
       1.0, false},
      {"huge",
       [](int, int, int, std::mt19937* rng) {
         return 1e30 * std::clamp(Normal(rng), -3.0, 3.0);
       },
       1e4 / 1e30},
      {"as large as floats are",
       [](int, int, int, std::mt19937* rng) {
         return Normal(rng) > 0.0 ? 1.9e38 : -1.9e38;
       },
       6.5e4 / 1.9e38, false},
      {"an outlier token",
       [](int, int token, int, std::mt19937* rng) {
         return (token == 3 ? 3000.0 : 1.0) * std::clamp(Normal(rng), -3., 3.);
       }},
      {"an outlier channel",
       [](int head, int, int dim, std::mt19937* rng) {
         return (head == 1 && dim == 5 ? 500.0 : 1.0) * Normal(rng);
       }},
      {"a far mean", [](int, int, int dim, std::mt19937* rng) {
         return 40.0 * (dim % 7) + Normal(rng);
       }}};
  return kinds;
}

struct Shape {
  KvShape shape;
  RopePairing pairing;
  int rotary_dim;
  double attention_factor;
};

class CertifiedErrorsTest : public testing::TestWithParam<Shape> {};

TEST_P(CertifiedErrorsTest, AreThoseOfTheDecodedRows) {
  const Shape& param = GetParam();
  for (Dtype dtype : {Dtype::kBf16, Dtype::kFp16, Dtype::kFp32}) {
    for (const Kind& kind : Kinds()) {
      ChunkOptions options;
      options.shape = param.shape;
      options.shape.dtype = dtype;
      options.pairing = param.pairing;
      options.rotary_dim = param.rotary_dim;
      options.attention_factor = param.attention_factor;
      std::mt19937 rng(5);
      KvBuffer kv(options.shape, Layout::kTokenMajor);
      const double scale = dtype == Dtype::kFp16 ? kind.fp16_scale : 1.0;
      for (int layer = 0; layer < options.shape.layers; ++layer) {
        for (KvPart part : {KvPart::kK, KvPart::kV}) {
          for (int head = 0; head < options.shape.kv_heads; ++head) {
            for (int token = 0; token < options.shape.tokens; ++token) {
              for (int dim = 0; dim < options.shape.head_dim; ++dim) {
                const double value = kind.values(head, token, dim, &rng);
                kv.Set(layer, part, head, token, dim,
                       static_cast<float>(scale * value));
              }
            }
          }
        }
      }
      SCOPED_TRACE(testing::Message()
                   << kind.name << ", dtype " << static_cast<int>(dtype));
      const auto built_in = TestCalibrationOf(HeaderOf(options));
      ExpectErrorsToHold(built_in, options, kv);
      const auto made = MadeCalibration(GeometryOf(options.shape));
      ExpectErrorsToHold(made, options, kv);
      if (!kind.may_move) continue;
      ExpectErrorsToBoundMovedRows(built_in, options, kv);
      ExpectErrorsToBoundMovedRows(made, options, kv);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, CertifiedErrorsTest,
    testing::Values(
        Shape{{2, 3, 40, 8, Dtype::kBf16}, RopePairing::kNeoX, 8, 1.0},
        Shape{{1, 2, 5, 32, Dtype::kBf16}, RopePairing::kGptJ, 32, 1.0},
        Shape{{1, 3, 65, 80, Dtype::kBf16}, RopePairing::kGptJ, 40, 1.3},
        Shape{{1, 2, 250, 128, Dtype::kBf16}, RopePairing::kNeoX, 128, 1.0},
        Shape{{1, 2, 33, 256, Dtype::kBf16}, RopePairing::kNeoX, 64, 0.9}));

}  // namespace
}  // namespace kdn::codec
