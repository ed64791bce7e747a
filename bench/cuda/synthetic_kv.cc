#include "bench/cuda/synthetic_kv.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "codec/entropy/value_distribution.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"

namespace kdn::bench {
namespace {

using codec::BandMode;
using codec::BandStep;
using codec::Calibration;
using codec::kBandComponents;
using codec::kLadderSteps;
using codec::kValueMax;

constexpr double kMatrixUnit = 64.0;
constexpr float kScale = 1.0f / 1024.0f;

// The standard deviation of the components of a half-band, in units of the
// finest step.
double DeviationOf(int half_band) { return 25.0 * std::pow(0.81, half_band); }

codec::ValueCounts NormalCounts(double deviation) {
  codec::ValueCounts counts{};
  for (int value = -kValueMax; value <= kValueMax; ++value) {
    const double x = value / deviation;
    counts[kValueMax + value] =
        static_cast<uint64_t>(std::exp(-x * x / 2) * (1 << 24));
  }
  return counts;
}

BandMode ModeOf(int band, int step, bool before) {
  const double deviation = DeviationOf(2 * band) / codec::CellOf(step);
  if (before) return BandMode::kQuad;
  if (deviation > 2.0) return BandMode::kSingle;
  if (deviation > 0.5) return BandMode::kPair;
  return deviation > 0.16 ? BandMode::kQuad : BandMode::kAbsent;
}

// Makes bands that serve every stream, and appends their tables to `tables`.
std::vector<std::array<BandStep, kLadderSteps>> Bands(
    int count, std::vector<codec::RansTable>* tables) {
  std::vector<std::array<BandStep, kLadderSteps>> bands(count);
  for (int band = 0; band < count; ++band) {
    bool before = false;
    for (int step = 0; step < kLadderSteps; ++step) {
      BandStep& made = bands[band][step];
      made.mode = ModeOf(band, step, before);
      if (made.mode == BandMode::kAbsent) continue;
      for (int half = 0; half < 2; ++half) {
        made.tables[half] = static_cast<uint8_t>(tables->size());
        tables->push_back(codec::SymbolTable(
            codec::CodedCounts(NormalCounts(DeviationOf(2 * band + half)), step,
                               before),
            made.mode));
      }
      made.shrink = static_cast<uint8_t>(codec::CellOf(step) / 4 * (band % 3));
      made.shrink =
          std::min<uint8_t>(made.shrink, (codec::CellOf(step) - 1) / 2);
      before = true;
    }
  }
  return bands;
}

// A matrix of orthonormal columns, [dim][components]. Columns beyond `dim` are
// zero.
std::vector<double> Orthonormal(int dim, int components, std::mt19937* rng) {
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> columns;
  for (int c = 0; c < std::min(dim, components); ++c) {
    std::vector<double> column(dim);
    for (double& x : column) x = normal(*rng);
    for (int pass = 0; pass < 2; ++pass) {
      for (const auto& other : columns) {
        double dot = 0;
        for (int d = 0; d < dim; ++d) dot += column[d] * other[d];
        for (int d = 0; d < dim; ++d) column[d] -= dot * other[d];
      }
    }
    double square = 0;
    for (const double x : column) square += x * x;
    for (double& x : column) x /= std::sqrt(square);
    columns.push_back(std::move(column));
  }
  std::vector<double> matrix(static_cast<size_t>(dim) * components, 0.0);
  for (size_t c = 0; c < columns.size(); ++c) {
    for (int d = 0; d < dim; ++d) {
      matrix[static_cast<size_t>(d) * components + c] = columns[c][d];
    }
  }
  return matrix;
}

codec::StreamTransform TransformOf(const std::vector<double>& orthonormal,
                                   int dim, int components, std::mt19937* rng) {
  std::normal_distribution<float> normal;
  std::vector<int8_t> synthesis(orthonormal.size());
  std::vector<float> analysis(orthonormal.size());
  codec::StreamTransform stream;
  for (int d = 0; d < dim; ++d) {
    // The transforms of streams differ in the signs of their dimensions.
    const double sign = (*rng)() % 2 == 0 ? 1.0 : -1.0;
    for (int c = 0; c < components; ++c) {
      const size_t at = static_cast<size_t>(d) * components + c;
      const double unit = sign * orthonormal[at];
      synthesis[at] = static_cast<int8_t>(std::lround(kMatrixUnit * unit));
      analysis[static_cast<size_t>(c) * dim + d] =
          static_cast<float>(unit / (kMatrixUnit * kScale));
    }
    stream.mean.push_back(normal(*rng) / 4);
  }
  stream.scale = kScale;
  stream.synthesis = codec::SynthesisMatrix(dim, components, synthesis);
  stream.analysis = codec::AnalysisMatrix(components, dim, analysis);
  return stream;
}

// Draws the rows of one head at a time.
class HeadRows {
 public:
  HeadRows(const RopeSpec& rope, absl::Span<const int32_t> positions,
           std::mt19937* rng)
      : table_(rope), positions_(positions), rng_(rng) {}

  // `first` is the head's first dimension in its stream.
  void Fill(const codec::StreamTransform& stream, int first, int layer,
            KvPart part, int head, const MutableKvView& kv) const {
    const KvShape& shape = kv.shape();
    const size_t dims = shape.head_dim;
    std::vector<float> matrix(stream.components() * dims);
    for (int c = 0; c < stream.components(); ++c) {
      for (size_t d = 0; d < dims; ++d) {
        matrix[c * dims + d] =
            stream.scale * static_cast<float>(stream.synthesis.At(
                               first + static_cast<int>(d), c));
      }
    }
    std::vector<float> row(dims);
    for (int token = 0; token < shape.tokens; ++token) {
      for (size_t d = 0; d < dims; ++d) {
        row[d] = stream.mean.empty() ? 0.0f : stream.mean[first + d];
      }
      AddComponents(matrix, stream.components(), &row);
      if (part == KvPart::kK) Rotate(positions_[token], row.data());
      StoreFloats(shape.dtype, row.data(), dims,
                  kv.At(layer, part, head, token));
    }
  }

 private:
  void AddComponents(const std::vector<float>& matrix, int components,
                     std::vector<float>* row) const {
    std::normal_distribution<float> normal;
    const float length = (*rng_)() % 64 == 0 ? 20.0f : 1.0f;
    const float* column = matrix.data();
    for (int c = 0; c < components; ++c, column += row->size()) {
      const float value =
          normal(*rng_) * length * static_cast<float>(DeviationOf(c / 8));
      for (size_t d = 0; d < row->size(); ++d) (*row)[d] += column[d] * value;
    }
  }

  void Rotate(int32_t position, float* row) const {
    std::vector<float> cos(table_.pairs());
    std::vector<float> sin(table_.pairs());
    table_.CosSin(position, cos.data(), sin.data());
    table_.Rotate(cos.data(), sin.data(), row);
  }

  RopeTable table_;
  absl::Span<const int32_t> positions_;
  std::mt19937* rng_;
};

}  // namespace

std::shared_ptr<const Calibration> SyntheticCalibration(
    const Calibration::Geometry& geometry, uint32_t seed, int components) {
  const int heads =
      codec::HeadsPerStream(geometry.kv_heads, geometry.head_dim, Level::kBase);
  const int dim = heads * geometry.head_dim;
  if (components == 0) {
    components =
        (dim + kBandComponents - 1) / kBandComponents * kBandComponents;
  }
  std::mt19937 rng(seed);
  const auto orthonormal = Orthonormal(dim, components, &rng);
  std::vector<codec::RansTable> tables;
  const auto bands = Bands(components / kBandComponents, &tables);
  std::vector<codec::StreamTransform> streams;
  const int count = geometry.layers * 2 * (geometry.kv_heads / heads);
  for (int i = 0; i < count; ++i) {
    streams.push_back(TransformOf(orthonormal, dim, components, &rng));
    streams.back().classes[0].bands = bands;
  }
  std::array<uint8_t, codec::CalibrationId::kSize> id{};
  id[0] = 1;
  id[1] = static_cast<uint8_t>(seed);
  auto made =
      Calibration::Create(codec::CalibrationId(id), ModelFingerprint(),
                          geometry, std::move(tables), std::move(streams));
  KDN_CHECK(made.ok(), "the synthetic calibration is in order");
  return *std::move(made);
}

void FillFitting(const Calibration& calibration, const RopeSpec& rope,
                 absl::Span<const int32_t> positions, std::mt19937* rng,
                 const MutableKvView& kv) {
  const KvShape& shape = kv.shape();
  const int heads = codec::StreamGrid(shape).HeadsOf(KvPart::kK, Level::kBase);
  const HeadRows rows(rope, positions, rng);
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        rows.Fill(calibration.Of(layer, part, head / heads),
                  head % heads * shape.head_dim, layer, part, head, kv);
      }
    }
  }
}

}  // namespace kdn::bench
