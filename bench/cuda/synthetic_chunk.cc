#include "bench/cuda/synthetic_chunk.h"

#include <numeric>
#include <random>

#include "bench/cuda/synthetic_kv.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "kv/check.h"

namespace kdn::bench {
namespace {

constexpr int kDistinct = 2;

RopeSpec LlamaRope() {
  RopeSpec rope;
  rope.theta = 500000.0;
  rope.rotary_dim = 128;
  rope.scaling = RopeScaling::kLlama3;
  rope.factor = 8.0;
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  rope.original_max_position = 8192;
  return rope;
}

codec::ObjectHeader HeaderOf(const KvShape& shape,
                             const codec::Calibration& calibration) {
  std::vector<int32_t> tokens(shape.tokens);
  std::iota(tokens.begin(), tokens.end(), 0);
  return {.identity = {.fingerprint = {},
                       .ns = *Namespace::Parse("bench"),
                       .condition = {},
                       .tokens = tokens},
          .shape = shape,
          .rope = LlamaRope(),
          .positions = tokens,
          .levels = LevelSet::Of(Level::kBase2).WithRefined(),
          .calibration = calibration.id()};
}

std::vector<std::byte> Encode(
    const codec::ObjectHeader& header,
    const std::shared_ptr<const codec::Calibration>& calibration,
    std::mt19937* rng) {
  std::vector<std::byte> kv(header.shape.bytes());
  const MutableKvView view(kv.data(), header.shape,
                           KvStrides::TokenMajor(header.shape));
  FillFitting(*calibration, header.rope, header.positions, rng, view);
  std::vector<std::byte> object(codec::ObjectBytesMax(header));
  auto encoder =
      codec::ObjectEncoder::Create(header, calibration, absl::MakeSpan(object));
  KDN_CHECK(encoder.ok(), "the header is in order");
  for (int layer = 0; layer < header.shape.layers; ++layer) {
    KDN_CHECK(encoder->EncodeLayer(KvView(view).Layer(layer)).ok(),
              "the values are finite");
  }
  const auto finished = encoder->Finish();
  KDN_CHECK(finished.ok(), "all layers are there");
  object.resize(finished->bytes);
  return object;
}

}  // namespace

KvShape LlamaShape() {
  return {.layers = 32,
          .kv_heads = 8,
          .tokens = 256,
          .head_dim = 128,
          .dtype = Dtype::kBf16};
}

std::vector<SyntheticChunk> MakeChunks(int layers, bool calibrated) {
  KvShape shape = LlamaShape();
  shape.layers = layers;
  const codec::Calibration::Geometry geometry = codec::GeometryOf(shape);
  const auto calibration = calibrated
                               ? SyntheticCalibration(geometry, 1)
                               : codec::Calibration::Uncalibrated(geometry);
  const codec::ObjectHeader header = HeaderOf(shape, *calibration);
  std::mt19937 rng(2);
  std::vector<SyntheticChunk> chunks(kDistinct);
  for (SyntheticChunk& chunk : chunks) {
    chunk.calibration = calibration;
    chunk.object = Encode(header, calibration, &rng);
    auto index = codec::ObjectIndex::Parse(chunk.object, chunk.object.size());
    KDN_CHECK(index.ok(), "an object that was just encoded");
    chunk.index.emplace(*std::move(index));
    chunk.wanted.resize(shape.tokens);
    std::iota(chunk.wanted.begin(), chunk.wanted.end(),
              static_cast<int32_t>(rng() % 100000));
  }
  return chunks;
}

std::vector<std::byte> DecodeOnCpu(const SyntheticChunk& chunk, Level level) {
  const KvShape& shape = chunk.index->header().shape;
  std::vector<std::byte> rows(shape.bytes());
  const MutableKvView view(rows.data(), shape, KvStrides::TokenMajor(shape));
  const auto decoder = codec::ObjectDecoder::Create(
      &*chunk.index, chunk.calibration, chunk.wanted);
  KDN_CHECK(decoder.ok(), "the positions are in order");
  for (int layer = 0; layer < shape.layers; ++layer) {
    KDN_CHECK(decoder
                  ->DecodeLayerOf(chunk.object, level, layer, 0, shape.kv_heads,
                                  view.Layer(layer))
                  .ok(),
              "an object that was just encoded");
  }
  return rows;
}

}  // namespace kdn::bench
