#include "tests/codec/test_calibration.h"

#include <algorithm>
#include <array>
#include <random>
#include <utility>

#include "codec/calibration/calibration_format.h"
#include "codec/entropy/value_distribution.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// Counts that fall by `factor` from each value to the next larger one.
ValueCounts Falling(double factor) {
  ValueCounts counts{};
  double height = 1e6;
  for (int value = 0; value <= kValueMax; ++value, height *= factor) {
    counts[kValueMax + value] = counts[kValueMax - value] =
        static_cast<uint64_t>(height);
  }
  return counts;
}

// Counts of the values -4 to 4: the refinements where a band skips one level.
ValueCounts NineDifferences() {
  ValueCounts counts{};
  std::fill_n(counts.begin() + kValueMax - 4, 9, 1000);
  return counts;
}

BandStep Step(BandMode mode, int step, bool before, int shrink,
              std::vector<RansTable>* tables) {
  const auto first = static_cast<uint8_t>(tables->size());
  for (double factor : {0.9, 0.8}) {  // of the two halves
    tables->push_back(
        SymbolTable(CodedCounts(Falling(factor), step, before), mode));
  }
  const auto second = static_cast<uint8_t>(first + 1);
  return {mode, {first, second}, static_cast<uint8_t>(shrink)};
}

// Five kinds of bands: how each is coded at each level.
std::vector<std::array<BandStep, kLadderSteps>> Kinds(
    std::vector<RansTable>* tables) {
  constexpr BandMode kSingle = BandMode::kSingle;
  constexpr BandMode kPair = BandMode::kPair;
  constexpr BandMode kQuad = BandMode::kQuad;
  const BandStep absent;
  BandStep late = Step(kPair, 2, true, 0, tables);
  tables->back() = SymbolTable(NineDifferences(), kPair);
  late.tables[0] = late.tables[1];
  return {
      {Step(kSingle, 0, false, 4, tables), Step(kQuad, 1, true, 1, tables),
       Step(kPair, 2, true, 0, tables)},
      {Step(kPair, 0, false, 1, tables), absent, late},
      {Step(kQuad, 0, false, 0, tables), Step(kPair, 1, true, 0, tables),
       Step(kQuad, 2, true, 0, tables)},
      {absent, Step(kSingle, 1, false, 1, tables),
       Step(kSingle, 2, true, 0, tables)},
      {absent, absent, Step(kSingle, 2, false, 0, tables)},
  };
}

// The matrix times `factor`, as [component][dimension].
std::vector<float> ValuesOf(const AnalysisMatrix& matrix, float factor) {
  std::vector<float> values(static_cast<size_t>(matrix.components()) *
                            matrix.dim());
  std::vector<float> unit(matrix.dim(), 0.0f);
  std::vector<float> column(matrix.components());
  for (int d = 0; d < matrix.dim(); ++d) {
    unit[d] = 1.0f;
    matrix.Apply(unit.data(), 1, column.data(), Isa::kScalar);
    unit[d] = 0.0f;
    for (int c = 0; c < matrix.components(); ++c) {
      values[static_cast<size_t>(c) * matrix.dim() + d] = column[c] * factor;
    }
  }
  return values;
}

// The parts of a calibration without tables and streams.
CalibrationParts EmptyParts(const Calibration::Geometry& geometry, uint8_t id) {
  std::array<uint8_t, CalibrationId::kSize> digest{};
  digest[0] = id;
  CalibrationParts parts;
  parts.id = CalibrationId(digest);
  digest[0] = 77;
  parts.model = ModelFingerprint(digest);
  parts.geometry = geometry;
  return parts;
}

// A transform of random integers with a strong diagonal, so that its columns
// are independent. The first band has small steps, so that high parts occur.
StoredTransform RandomTransform(int dim, int heads, std::mt19937* random) {
  const int components =
      (dim + kBandComponents - 1) / kBandComponents * kBandComponents;
  std::uniform_int_distribution<int> entry(-12, 12);
  StoredTransform transform;
  transform.synthesis.assign(static_cast<size_t>(dim) * components, 0);
  for (int d = 0; d < dim; ++d) {
    for (int c = 0; c < dim; ++c) {
      const int value = d == c ? 100 : entry(*random);
      transform.synthesis[static_cast<size_t>(d) * components + c] =
          static_cast<int8_t>(c < kBandComponents ? value / 5 : value);
    }
    transform.mean.push_back(0.25f * static_cast<float>(d % 5 - 2));
    transform.predictor.linear.push_back(d % 3 == 0 ? 0.7f : -0.4f);
    transform.predictor.square.push_back(d % 4 == 0 ? 0.2f : -0.05f);
  }
  transform.predictor.constant = 0.3f;
  for (int head = 0; head < heads; ++head) {
    transform.head_scales.push_back(head < heads / 2 ? 0.0011f : 0.0009f);
  }
  return transform;
}

}  // namespace

CalibrationParts JointParts(const Calibration::Geometry& geometry,
                            int joint_heads, uint8_t id, int wide_bands) {
  CalibrationParts parts = EmptyParts(geometry, id);
  parts.joint_heads = joint_heads;
  const auto kinds = Kinds(&parts.tables);
  // The high parts of the first band fit a symbol. Those of other wide bands
  // need patches from 2 on.
  std::array<std::array<BandStep, kLadderSteps>, 2> high;
  high[0][0] = kinds[0][0];
  high[0][0].shrink = 0;
  high[1][0] = kinds[2][0];
  std::mt19937 random(id);
  const int groups = geometry.kv_heads / joint_heads;
  for (int i = 0; i < geometry.layers * groups; ++i) {
    StoredTransform stored = RandomTransform(
        2 * joint_heads * geometry.head_dim, 2 * joint_heads, &random);
    stored.wide_bands = wide_bands;
    stored.classes.clear();
    for (int exponent = -1; exponent <= 3; ++exponent) {
      TokenClass token_class{exponent, {}};
      const size_t bands =
          (stored.mean.size() + kBandComponents - 1) / kBandComponents;
      const auto wide = static_cast<size_t>(wide_bands);
      for (size_t band = 0; band < bands; ++band) {
        token_class.bands.push_back(
            kinds[band < wide ? 0 : (band + i + exponent + 1) % kinds.size()]);
      }
      for (size_t band = 0; band < wide; ++band) {
        token_class.bands.push_back(high[band == 0 ? 0 : 1]);
      }
      stored.classes.push_back(std::move(token_class));
    }
    auto transform = MakeTransform(stored);
    KDN_CHECK(transform.ok(), "the columns are independent");
    parts.streams.push_back(*std::move(transform));
  }
  return parts;
}

std::shared_ptr<const Calibration> MadeJointCalibration(
    const Calibration::Geometry& geometry, int joint_heads, uint8_t id) {
  auto calibration = JointParts(geometry, joint_heads, id).Create();
  KDN_CHECK(calibration.ok(), "the parts are in order");
  return *std::move(calibration);
}

CalibrationParts PartsOf(const Calibration::Geometry& geometry, uint8_t id) {
  constexpr float kStepsOfOne = 10.0f;
  CalibrationParts parts = EmptyParts(geometry, id);
  const auto kinds = Kinds(&parts.tables);
  const auto built_in = Calibration::Uncalibrated(geometry);
  StreamTransform stream = built_in->Of(0, KvPart::kK, 0);
  stream.scale /= kStepsOfOne;
  stream.analysis = AnalysisMatrix(stream.components(), stream.dim(),
                                   ValuesOf(stream.analysis, kStepsOfOne));
  for (int d = 0; d < stream.dim(); ++d) {
    stream.mean.push_back(0.25f * static_cast<float>(d % 5 - 2));
  }
  const size_t groups =
      geometry.kv_heads /
      HeadsPerStream(geometry.kv_heads, geometry.head_dim, Level::kBase);
  for (size_t i = 0; i < 2 * geometry.layers * groups; ++i) {
    for (size_t band = 0; band < stream.classes[0].bands.size(); ++band) {
      stream.classes[0].bands[band] = kinds[(band + i) % kinds.size()];
    }
    parts.streams.push_back(stream);
  }
  return parts;
}

std::shared_ptr<const Calibration> MadeCalibration(
    const Calibration::Geometry& geometry, uint8_t id) {
  auto calibration = PartsOf(geometry, id).Create();
  KDN_CHECK(calibration.ok(), "the parts are in order");
  return *std::move(calibration);
}

}  // namespace kdn::codec
