#include "tests/codec/cuda/gpu_test_chunk.h"

#include <numeric>

#include "bench/cuda/synthetic_kv.h"
#include "kv/check.h"

namespace kdn::codec::cuda {

GpuTestChunk::GpuTestChunk(const ChunkOptions& options, Coding coding,
                           uint32_t seed, int components)
    : header(HeaderOf(options)) {
  const Calibration::Geometry geometry = GeometryOf(options.shape);
  calibration = coding == Coding::kUncalibrated
                    ? Calibration::Uncalibrated(geometry)
                    : bench::SyntheticCalibration(geometry, seed, components);
  header.calibration = calibration->id();
  image = std::make_shared<CalibrationImage>(calibration);
  std::mt19937 rng(seed);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  if (coding == Coding::kNoise) {
    kv.FillRandom(&rng);
  } else {
    bench::FillFitting(*calibration, header.rope, header.positions, &rng,
                       kv.view());
  }
  object.resize(ObjectBytesMax(header));
  auto encoder =
      ObjectEncoder::Create(header, calibration, absl::MakeSpan(object));
  KDN_CHECK(encoder.ok(), "test header is valid");
  for (int layer = 0; layer < header.shape.layers; ++layer) {
    KDN_CHECK(encoder->EncodeLayer(kv.view().Layer(layer)).ok(),
              "test KV is valid");
  }
  object.resize(encoder->Finish()->bytes);
  index.emplace(*ObjectIndex::Parse(object, object.size()));
}

std::vector<int32_t> GpuTestChunk::PositionsFrom(int32_t first) const {
  std::vector<int32_t> positions(header.positions.size());
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

absl::Status GpuTestChunk::DecodeOnCpu(Level level, const KvSlice& slice,
                                       absl::Span<const int32_t> positions,
                                       const MutableKvView& kv) const {
  const auto decoder = ObjectDecoder::Create(&*index, calibration, positions);
  if (!decoder.ok()) return decoder.status();
  for (int layer = 0; layer < slice.layers(); ++layer) {
    absl::Status decoded = decoder->DecodeLayerOf(
        object, level, slice.layer_begin + layer, slice.head_begin,
        slice.head_end, kv.Layer(layer));
    if (!decoded.ok()) return decoded;
  }
  return absl::OkStatus();
}

ChunkRequest GpuTestChunk::Request(Level level, const KvSlice& slice,
                                   absl::Span<const int32_t> positions,
                                   const MutableKvView& kv) const {
  return {.index = &*index,
          .object = object,
          .level = level,
          .slice = slice,
          .positions = positions,
          .places = StridedPlaces{kv.base(), kv.strides()}};
}

KvShape ShapeOf(const KvShape& whole, const KvSlice& slice) {
  KvShape shape = whole;
  shape.layers = slice.layers();
  shape.kv_heads = slice.heads();
  return shape;
}

}  // namespace kdn::codec::cuda
