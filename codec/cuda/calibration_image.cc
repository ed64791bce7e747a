#include "codec/cuda/calibration_image.h"

#include <algorithm>
#include <utility>

#include "codec/format/stream_layout.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/transform/symbol_bands.h"
#include "kv/check.h"

namespace kdn::codec::cuda {
namespace {

static_assert(sizeof(CoderTable::symbols) == kRansTotal);
static_assert(kBandBytes == kBandComponents && kLevelSteps == kLadderSteps);
static_assert(kHighPart == kHighRadix);
static_assert(kPlainTables == static_cast<int>(BandMode::kQuad));

CoderTable TableOf(const RansTable& table) {
  CoderTable result;
  for (uint32_t slot = 0; slot < kRansTotal; ++slot) {
    result.symbols[slot] = static_cast<uint8_t>(table.decode_entries()[slot]);
  }
  for (size_t s = 0; s < kRansSymbols; ++s) {
    result.ranges[s] = table.encode_entries()[s];
  }
  return result;
}

// The values of every symbol, after `move` has changed them.
template <typename F>
ValueTable ValuesOf(BandMode mode, const F& move) {
  const int count = ValuesPerSymbol(mode);
  ValueTable table{};
  for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
    uint8_t symbols[kBandComponents];
    std::fill_n(symbols, kBandComponents, static_cast<uint8_t>(symbol));
    int8_t values[kBandComponents];
    UnpackBand(mode, symbols, 1, values, kBandComponents);
    move(values);
    for (int i = 0; i < count; ++i) {
      table.values[symbol] |= uint32_t{static_cast<uint8_t>(values[i])}
                              << (8 * i);
    }
  }
  return table;
}

// The shape of the calibration's streams.
StreamGrid GridOf(const Calibration& calibration) {
  const Calibration::Geometry& geometry = calibration.geometry();
  KvShape shape;
  shape.layers = geometry.layers;
  shape.kv_heads = geometry.kv_heads;
  shape.head_dim = geometry.head_dim;
  return {shape, calibration.joint_heads()};
}

}  // namespace

CalibrationImage::CalibrationImage(
    std::shared_ptr<const Calibration> calibration)
    : calibration_(std::move(calibration)) {
  for (const RansTable& table : calibration_->tables()) {
    tables_.push_back(TableOf(table));
  }
  for (int mode = 1; mode <= kPlainTables; ++mode) {
    values_.push_back(ValuesOf(static_cast<BandMode>(mode), [](int8_t*) {}));
  }
  const StreamGrid grid = GridOf(*calibration_);
  for (int layer = 0; layer < grid.shape.layers; ++layer) {
    for (const StreamId& id : StreamsOf(grid, {layer, Level::kBase})) {
      // If K and V share a stream, they share its transform.
      Add(calibration_->Of(layer, id.part, id.head_group));
    }
  }
}

void CalibrationImage::Add(const StreamTransform& transform) {
  if (!index_.try_emplace(&transform, transforms_.size()).second) return;
  const SynthesisMatrix& matrix = transform.synthesis;
  TransformRef ref{.dim = transform.dim(),
                   .bands = matrix.components() / kBandComponents,
                   .wide_bands = transform.wide_bands,
                   .bands_at = bands_.size(),
                   .mean_at = means_.size(),
                   .synthesis_at = synthesis_.size()};
  AddBands(transform);
  means_.insert(means_.end(), transform.mean.begin(), transform.mean.end());
  const int blocks = (ref.dim + kBlockDims - 1) / kBlockDims;
  // Words outside the matrix are zero.
  synthesis_.resize(TwoProductsAt(ref, blocks, 0, 0));
  for (int d = 0; d < matrix.dim(); ++d) {
    for (int c = 0; c < matrix.components(); ++c) {
      synthesis_[SynthesisWord(ref, d, c / 4)] |=
          static_cast<uint32_t>(static_cast<uint8_t>(matrix.At(d, c)))
          << (c % 4 * 8);
    }
  }
  transforms_.push_back(ref);
}

void CalibrationImage::AddBands(const StreamTransform& transform) {
  for (const TokenClass& token_class : transform.classes) {
    for (const auto& steps : token_class.bands) {
      for (const BandStep& band : steps) {
        bands_.push_back({static_cast<uint8_t>(band.mode),
                          {band.tables[0], band.tables[1]},
                          band.shrink,
                          &band == &steps[0] ? MiddlesOf(band) : uint16_t{0}});
      }
    }
  }
}

uint16_t CalibrationImage::MiddlesOf(const BandStep& band) {
  if (band.mode == BandMode::kAbsent) return 0;
  const auto [found, is_new] = middles_.try_emplace(
      {band.mode, band.shrink}, static_cast<uint16_t>(values_.size()));
  if (is_new) {
    int8_t shrinks[kBandComponents];
    std::fill_n(shrinks, kBandComponents, static_cast<int8_t>(band.shrink));
    values_.push_back(ValuesOf(band.mode, [&shrinks](int8_t* values) {
      kernels::ToCellMiddles(shrinks, CellOf(0), kBandComponents, values);
    }));
  }
  return found->second;
}

uint32_t CalibrationImage::IndexOf(const StreamTransform& transform) const {
  const auto found = index_.find(&transform);
  KDN_CHECK(found != index_.end(), "a transform of another calibration");
  return found->second;
}

CalibrationRef CalibrationImage::ref() const {
  return {tables_.data(), values_.data(), transforms_.data(),
          bands_.data(),  means_.data(),  synthesis_.data()};
}

}  // namespace kdn::codec::cuda
