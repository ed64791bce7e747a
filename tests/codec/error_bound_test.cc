// For every finite input, the values of a transform-coded stream are within the
// error bound of docs/formats.md, "Errors".

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "codec/calibration/calibration_format.h"
#include "codec/calibration/calibrator.h"
#include "codec/entropy/value_distribution.h"
#include "codec/transform/transform_codec.h"
#include "codec/transform/transform_frame.h"
#include "kv/check.h"
#include "tests/codec/test_calibration.h"

namespace kdn::codec {
namespace {

constexpr Level kLadder[] = {Level::kBase, Level::kBase1, Level::kBase2};

// Half the distance between two neighbours around `value` in a float format
// with significands of `bits` bits and normal numbers from
// 2^(exponent_min - 1) on: the largest error of rounding.
double HalfUlp(double value, int bits, int exponent_min) {
  int exponent = exponent_min;
  if (value != 0) std::frexp(value, &exponent);
  return std::ldexp(0.5, std::max(exponent, exponent_min) - bits);
}
double RoundingOf(Dtype dtype, double value) {
  switch (dtype) {
    case Dtype::kBf16:
      return HalfUlp(value, 8, -125);
    case Dtype::kFp16:
      return HalfUlp(value, 11, -13);
    case Dtype::kFp32:
      return HalfUlp(value, 24, -125);
  }
  return 0.0;
}

// The streams of V, one for each level, and their parts.
struct Coded {
  std::vector<std::vector<std::byte>> streams;
  std::vector<StreamParts> parts;  // without the streams of form kNothing

  bool IsKept(int token) const {
    const std::vector<uint16_t>& kept = parts[0].raw_tokens;
    return parts[0].form == StreamForm::kRows ||
           std::binary_search(kept.begin(), kept.end(), token);
  }
};

class Bed {
 public:
  Bed(const StreamShape& shape, std::shared_ptr<const Calibration> calibration)
      : shape_(shape),
        calibration_(std::move(calibration)),
        transform_(calibration_->Of(0, shape.part, 0)),
        positions_(shape.tokens),
        analysis_(transform_.components() * transform_.dim()) {
    std::iota(positions_.begin(), positions_.end(), 0);
    std::vector<float> unit(transform_.dim());
    std::vector<float> column(transform_.components());
    for (int d = 0; d < transform_.dim(); ++d) {
      unit[d] = 1.0f;
      transform_.analysis.Apply(unit.data(), 1, column.data(), Isa::kScalar);
      unit[d] = 0.0f;
      for (int c = 0; c < transform_.components(); ++c) {
        analysis_[c * transform_.dim() + d] = std::fabs(column[c]);
      }
    }
  }

  // Encodes rows, [token][dim] with all heads side by side, and checks what
  // every level decodes to. Rounds the rows to the dtype first.
  void ExpectBounded(std::vector<float> rows) const {
    for (float& value : rows) value = Stored(value);
    const Coded coded = Encode(rows);
    for (size_t levels = 1; levels <= std::size(kLadder); ++levels) {
      SCOPED_TRACE(Name(kLadder[levels - 1]));
      const std::vector<float> decoded = Decode(coded, levels);
      for (int token = 0; token < shape_.tokens; ++token) {
        const float* exact = rows.data() + size_t(token) * transform_.dim();
        const float* came = decoded.data() + size_t(token) * transform_.dim();
        const std::vector<double> most =
            coded.IsKept(token) ? KeptBound(exact)
                                : CodedBound(coded, levels, token, exact);
        for (int d = 0; d < transform_.dim(); ++d) {
          ASSERT_LE(std::fabs(double{came[d]} - exact[d]), most[d])
              << "token " << token << " dimension " << d << ": " << exact[d]
              << " became " << came[d]
              << (coded.IsKept(token) ? ", kept" : ", coded");
        }
      }
    }
  }

 private:
  float Stored(float value) const {
    std::byte bytes[4];
    value =
        std::clamp(value, -LargestOf(shape_.dtype), LargestOf(shape_.dtype));
    StoreFloats(shape_.dtype, &value, 1, bytes);
    LoadFloats(shape_.dtype, bytes, 1, &value);
    return value;
  }

  StreamContext Context() const {
    return {.positions = positions_,
            .transform = &transform_,
            .tables = calibration_->tables()};
  }

  // The rows of each head in memory laid out as [token][head][dim].
  template <typename R, typename Bytes>
  std::vector<R> HeadsIn(Bytes* bytes) const {
    std::vector<R> heads;
    for (int head = 0; head < shape_.heads; ++head) {
      heads.push_back(
          {bytes + head * shape_.row_bytes(),
           static_cast<int64_t>(shape_.heads * shape_.row_bytes())});
    }
    return heads;
  }

  Coded Encode(const std::vector<float>& rows) const {
    std::vector<std::byte> memory(rows.size() * SizeOf(shape_.dtype));
    StoreFloats(shape_.dtype, rows.data(), rows.size(), memory.data());
    Coded coded;
    std::vector<StreamRoom> rooms;
    for (const Level level : kLadder) {
      coded.streams.emplace_back(TransformCodec().BytesMax(shape_, level));
      rooms.push_back({absl::MakeSpan(coded.streams.back())});
    }
    const absl::Status status = TransformCodec().Encode(
        shape_, HeadsIn<Rows>(std::as_const(memory).data()), Context(),
        absl::MakeSpan(rooms));
    EXPECT_TRUE(status.ok()) << status;
    StreamFrame frame = FrameOf(shape_, transform_);
    for (size_t i = 0; i < rooms.size(); ++i) {
      coded.streams[i].resize(rooms[i].bytes);
      frame.step = static_cast<int>(i);
      auto parts =
          ReadLevel(frame, transform_, coded.streams[i],
                    coded.parts.empty() ? absl::Span<const uint8_t>()
                                        : coded.parts.front().token_classes);
      EXPECT_TRUE(parts.ok()) << parts.status();
      if (parts.ok() && parts->form != StreamForm::kNothing) {
        coded.parts.push_back(*std::move(parts));
      }
    }
    return coded;
  }

  std::vector<float> Decode(const Coded& coded, size_t levels) const {
    std::vector<StreamReader> readers(coded.streams.begin(),
                                      coded.streams.begin() + levels);
    std::vector<std::byte> memory(shape_.values() * SizeOf(shape_.dtype));
    const absl::Status status =
        TransformCodec().Decode(shape_, absl::MakeSpan(readers), Context(),
                                HeadsIn<MutableRows>(memory.data()));
    EXPECT_TRUE(status.ok()) << status;
    std::vector<float> rows(shape_.values());
    LoadFloats(shape_.dtype, memory.data(), rows.size(), rows.data());
    return rows;
  }

  // The bounds of a kept row. An element is rounded to bf16, or it becomes the
  // largest bf16 that the dtype can hold, less than two roundings away.
  std::vector<double> KeptBound(const float* exact) const {
    std::vector<double> most;
    for (int d = 0; d < transform_.dim(); ++d) {
      const double bf16 = RoundingOf(Dtype::kBf16, exact[d]);
      const bool is_at_the_end =
          std::fabs(exact[d]) + bf16 >= LargestOf(shape_.dtype);
      most.push_back(shape_.dtype == Dtype::kBf16 ? 0.0
                     : is_at_the_end              ? 2 * bf16
                                                  : bf16);
    }
    return most;
  }

  // The largest difference of a decoded value to the exact one, in steps of the
  // finest quantiser.
  // High parts are exact.
  double CellBound(const TokenClass& token_class, int component,
                   int reached) const {
    const auto& band = token_class.bands[component / kBandComponents];
    for (int step = reached; step >= 0; --step) {
      if (band[step].mode == BandMode::kAbsent) continue;
      return CellOf(step) / 2.0 + band[reached].shrink;
    }
    return kValueMax + 0.5;
  }

  std::vector<double> CodedBound(const Coded& coded, size_t levels, int token,
                                 const float* exact) const {
    const int dim = transform_.dim();
    const TokenClass& token_class =
        transform_.classes[coded.parts[0].token_classes[token]];
    const auto reached =
        static_cast<int>(std::min(levels, coded.parts.size())) - 1;
    const double gain = std::ldexp(coded.parts[0].gain, token_class.exponent);
    std::vector<float> mean(transform_.mean);
    if (mean.empty()) {
      mean.resize(dim);
      LoadFloats(Dtype::kBf16, coded.parts[0].mean.data(), dim, mean.data());
    }
    std::vector<double> cells;
    for (int c = 0; c < transform_.components(); ++c) {
      double summed = 0;  // of the magnitudes that the encoder adds up
      for (int d = 0; d < dim; ++d) {
        summed +=
            analysis_[c * dim + d] * std::fabs(double{exact[d]} - mean[d]);
      }
      cells.push_back(CellBound(token_class, c, reached) +
                      0x1p-7 * summed / gain);
    }
    std::vector<double> most;
    for (int d = 0; d < dim; ++d) {
      double far = 0;
      for (int c = 0; c < transform_.components(); ++c) {
        far += std::abs(transform_.synthesis.At(d, c)) * cells[c];
      }
      far *= transform_.ScaleOf(d * shape_.heads / dim) * gain;
      // The product and the sum are rounded to fp32, then to the dtype.
      const double value = std::fabs(exact[d]) + far;
      most.push_back(far + RoundingOf(shape_.dtype, value) +
                     2 * RoundingOf(Dtype::kFp32, value + std::fabs(mean[d])));
    }
    return most;
  }

  const StreamShape shape_;
  const std::shared_ptr<const Calibration> calibration_;
  const StreamTransform& transform_;
  std::vector<int32_t> positions_;
  std::vector<double> analysis_;  // magnitudes, [component][dim]
};

// The value of a token's dimension. `largest` is the largest value of the
// dtype.
using Values =
    std::function<double(int token, int dim, double largest, std::mt19937&)>;
struct Kind {
  const char* name;
  Values values;
};

double Normal(std::mt19937& rng) {
  return std::normal_distribution<double>()(rng);
}
double Sign(std::mt19937& rng) { return rng() % 2 == 0 ? 1.0 : -1.0; }

const Kind kKinds[] = {
    {"normal", [](int, int, double, auto& rng) { return Normal(rng); }},
    {"any exponent",
     [](int, int, double largest, auto& rng) {
       const double range = std::log2(largest);
       return Sign(rng) * std::exp2(std::uniform_real_distribution<double>(
                              -range, range)(rng));
     }},
    {"any exponent by token",
     [](int token, int, double largest, auto& rng) {
       return Normal(rng) * std::exp2(token * 5 % 37 - 18) *
              std::min(1.0, largest / 1e7);
     }},
    {"a constant", [](int, int, double, auto&) { return 0.7; }},
    {"a large constant",
     [](int, int, double largest, auto&) { return largest; }},
    {"zeros", [](int, int, double, auto&) { return 0.0; }},
    {"subnormal",
     [](int, int, double, auto& rng) { return 1e-41 * Normal(rng); }},
    {"the least above zero",
     [](int, int, double, auto& rng) { return FLT_TRUE_MIN * Sign(rng); }},
    {"one-hot", [](int token, int dim, double,
                   auto&) { return dim == token ? 40.0 : 0.0; }},
    {"one-hot and large",
     [](int token, int dim, double largest, auto&) {
       return dim == token % 8 ? largest : 0.0;
     }},
    {"signs", [](int, int, double, auto& rng) { return 3 * Sign(rng); }},
    {"the largest, any sign",
     [](int, int, double largest, auto& rng) { return largest * Sign(rng); }},
    {"the largest of either sign by dimension",
     [](int, int dim, double largest, auto&) {
       return dim % 2 == 0 ? largest : -largest;
     }},
    {"near the largest",
     [](int, int, double largest, auto& rng) {
       return largest * (0.5 + 0.5 * std::generate_canonical<double, 32>(rng)) *
              Sign(rng);
     }},
    {"one of the largest in a token",
     [](int token, int, double largest, auto& rng) {
       return token == 3 ? largest * Sign(rng) : Normal(rng);
     }},
    {"a far mean", [](int, int dim, double,
                      auto& rng) { return 3000.0 * dim + Normal(rng); }},
    {"at the quantiser's end",
     [](int, int, double, auto& rng) { return 12.7 * Sign(rng); }},
};

struct Param {
  int heads;
  int tokens;
  int head_dim;
};

struct NamedCalibration {
  const char* name;
  std::shared_ptr<const Calibration> calibration;
};

// A calibration made from normal values whose first dimension is a thousand
// times as wide as the others.
std::shared_ptr<const Calibration> CalibratedOnFarDimension(
    const Calibration::Geometry& geometry) {
  ModelSpec spec;
  spec.name = "bounded";
  spec.num_layers = geometry.layers;
  spec.num_kv_heads = geometry.kv_heads;
  spec.head_dim = geometry.head_dim;
  spec.dtype = Dtype::kFp32;
  auto calibrator = Calibrator::Create(spec);
  KDN_CHECK(calibrator.ok(), "such a model can be coded");
  const KvShape shape = ShapeOf(spec, 2 * calibrator->TokensMin());
  std::mt19937 rng(12);
  std::vector<float> values(shape.bytes() / sizeof(float));
  for (size_t i = 0; i < values.size(); ++i) {
    const bool is_far = i % (geometry.kv_heads * geometry.head_dim) == 0;
    values[i] = static_cast<float>(Normal(rng) * (is_far ? 1000.0 : 1.0));
  }
  const KvView kv(reinterpret_cast<const std::byte*>(values.data()), shape,
                  KvStrides::TokenMajor(shape));
  KDN_CHECK(calibrator->Add(kv, std::vector<int32_t>(shape.tokens)).ok(),
            "normal values are finite");
  const auto stored = calibrator->Finish({});
  KDN_CHECK(stored.ok(), "there are tokens enough");
  return *MakeCalibration(CalibrationId(), *stored);
}

class ErrorBoundTest : public testing::TestWithParam<Param> {};

TEST_P(ErrorBoundTest, HoldsForEveryFiniteInput) {
  const Param& param = GetParam();
  const Calibration::Geometry geometry = {1, param.heads, param.head_dim};
  const NamedCalibration calibrations[] = {
      {"built in", Calibration::Uncalibrated(geometry)},
      {"made up", MadeCalibration(geometry)},
      {"made up, joint", MadeJointCalibration(geometry, param.heads)},
      {"of a far dimension", CalibratedOnFarDimension(geometry)}};
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kFp16, Dtype::kFp32}) {
    for (const NamedCalibration& named : calibrations) {
      StreamShape shape = {KvPart::kV, param.heads, param.tokens,
                           param.head_dim, dtype};
      if (named.calibration->joint_heads() > 0) {
        shape.part = KvPart::kK;
        shape.joint = true;
        shape.heads *= 2;
      }
      const int dim = shape.heads * param.head_dim;
      const Bed bed(shape, named.calibration);
      for (const Kind& kind : kKinds) {
        SCOPED_TRACE(testing::Message() << kind.name << ", " << Name(dtype)
                                        << ", calibration " << named.name);
        std::mt19937 rng(11);
        std::vector<float> rows;
        for (int token = 0; token < param.tokens; ++token) {
          for (int d = 0; d < dim; ++d) {
            rows.push_back(static_cast<float>(
                kind.values(token, d, LargestOf(dtype), rng)));
          }
        }
        bed.ExpectBounded(rows);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ErrorBoundTest,
                         testing::Values(Param{1, 130, 1}, Param{1, 40, 8},
                                         Param{3, 70, 8}, Param{1, 90, 24},
                                         Param{2, 60, 64}, Param{1, 24, 256}));

}  // namespace
}  // namespace kdn::codec
