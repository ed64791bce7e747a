// The built-in calibration, for models that were never calibrated.

#include <bit>
#include <cmath>

#include "codec/calibration/calibration.h"
#include "codec/entropy/value_distribution.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// exp(-1 / (2 s^2)) in units of 2^-32, for s = 10 and s = 20. Every stream's
// own scale gives its components a standard deviation of 10 of the finest
// steps, which is 1.1 cells of the base level.
constexpr uint64_t kDecay = 4273546057;
constexpr uint64_t kWideDecay = 4289601941;

// The integer that stands for 1 in the matrix.
constexpr int kUnit = 64;

// Adds a normal distribution: `height` times `decay` to the power of the
// squared value.
void AddNormal(uint64_t decay, uint64_t height, ValueCounts* counts) {
  uint64_t density = height;
  uint64_t ratio = decay;
  const uint64_t ratio_of_ratios = decay * decay >> 32;
  for (int value = 0; value <= kValueMax; ++value) {
    (*counts)[kValueMax + value] += density;
    if (value > 0) (*counts)[kValueMax - value] += density;
    density = density * ratio >> 32;
    ratio = ratio * ratio_of_ratios >> 32;
  }
}

// The distribution of the finest values: a normal distribution and a wider one.
// The rows of tokens differ in length, so their components have longer tails
// than one normal distribution.
ValueCounts Finest() {
  ValueCounts counts{};
  AddNormal(kDecay, 14u << 20, &counts);
  AddNormal(kWideDecay, 1u << 20, &counts);
  return counts;
}

// A matrix with Hadamard matrices along its diagonal. Their sizes are powers of
// two, the largest first.
std::vector<int8_t> Hadamard(int dim, int components) {
  std::vector<int8_t> values(static_cast<size_t>(dim) * components, 0);
  for (int begin = 0; begin < dim;) {
    const int size =
        static_cast<int>(std::bit_floor(static_cast<unsigned>(dim - begin)));
    const int entry =
        std::max(1, static_cast<int>(std::lround(kUnit / std::sqrt(size))));
    for (int d = 0; d < size; ++d) {
      for (int c = 0; c < size; ++c) {
        const bool minus = std::popcount(static_cast<unsigned>(d & c)) % 2 != 0;
        values[static_cast<size_t>(begin + d) * components + begin + c] =
            static_cast<int8_t>(minus ? -entry : entry);
      }
    }
    begin += size;
  }
  return values;
}

// The left inverse of scale times a matrix with orthogonal columns: the
// transpose, with each row divided by its squared length and by scale.
std::vector<float> InverseOf(const std::vector<int8_t>& matrix, int dim,
                             int components, float scale) {
  std::vector<float> inverse(matrix.size(), 0.0f);
  for (int c = 0; c < components; ++c) {
    float square = 0;
    for (int d = 0; d < dim; ++d) {
      const float x = matrix[static_cast<size_t>(d) * components + c];
      square += x * x;
    }
    if (square == 0) continue;
    for (int d = 0; d < dim; ++d) {
      inverse[static_cast<size_t>(c) * dim + d] =
          matrix[static_cast<size_t>(d) * components + c] / (square * scale);
    }
  }
  return inverse;
}

}  // namespace

std::shared_ptr<const Calibration> Calibration::Uncalibrated(
    const Geometry& geometry) {
  KDN_CHECK(geometry.head_dim <= kTransformDimMax, "too many dimensions");
  const int dim =
      geometry.head_dim *
      HeadsPerStream(geometry.kv_heads, geometry.head_dim, Level::kBase);
  const int bands = (dim + kBandComponents - 1) / kBandComponents;
  const int components = bands * kBandComponents;
  const std::vector<int8_t> matrix = Hadamard(dim, components);
  StreamTransform stream;
  // With this scale, a row is about as long as its components. A stream's own
  // gain comes on top.
  stream.scale = 1.0f / kUnit;
  stream.synthesis = SynthesisMatrix(dim, components, matrix);
  stream.analysis = AnalysisMatrix(
      components, dim, InverseOf(matrix, dim, components, stream.scale));
  const ValueCounts finest = Finest();
  std::vector<FormatCoder::Table> tables;
  std::array<BandStep, kLadderSteps> band;
  for (int step = 0; step < kLadderSteps; ++step) {
    const BandMode mode = step == 0 ? BandMode::kPair : BandMode::kQuad;
    tables.push_back(SymbolTable(CodedCounts(finest, step, step > 0), mode));
    const auto table = static_cast<uint8_t>(step);
    band[step] = {mode, {table, table}, 0};
  }
  stream.classes.front().bands.assign(bands, band);
  std::vector<StreamTransform> streams;
  streams.push_back(std::move(stream));
  auto made = Create(CalibrationId(), ModelFingerprint(), geometry,
                     std::move(tables), std::move(streams));
  KDN_CHECK(made.ok(), "the built-in calibration is in order");
  return *std::move(made);
}

}  // namespace kdn::codec
