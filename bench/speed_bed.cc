#include "bench/speed_bed.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "bench/gaussian_source.h"
#include "bench/kv_tensor.h"
#include "bench/median.h"
#include "codec/calibration/calibrator.h"
#include "codec/whole_object.h"
#include "kv/check.h"
#include "kv/clock.h"

namespace kdn::bench {
namespace {

constexpr int kTurns = 7;
constexpr int kDecodesPerTurn = 4;
constexpr int kSampleTokens = 2048;

// Draws one layer of `tokens` tokens.
KvTensor DrawLayer(KvShape shape, int tokens, uint32_t seed) {
  shape.layers = 1;
  shape.tokens = tokens;
  KvTensor layer(shape);
  for (const KvPart part : {KvPart::kK, KvPart::kV}) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      // Each head has its own basis; the rows depend on the seed.
      GaussianSource source(shape.head_dim, part == KvPart::kK ? 16.0 : 48.0,
                            100 + head);
      source.Skip(seed);
      const KvTensor rows = source.Draw(tokens);
      for (int token = 0; token < tokens; ++token) {
        const auto from = rows.Row(0, part, 0, token);
        std::copy(from.begin(), from.end(),
                  layer.Row(0, part, head, token).begin());
      }
    }
  }
  return layer;
}

}  // namespace

absl::StatusOr<codec::StoredCalibration> CalibrateOnSpectra(
    const ModelSpec& model, double base_bits) {
  ModelSpec one_layer = model;
  one_layer.num_layers = 1;
  auto calibrator = codec::Calibrator::Create(one_layer);
  if (!calibrator.ok()) return calibrator.status();
  const KvTensor sample =
      DrawLayer(ShapeOf(one_layer, kSampleTokens), kSampleTokens, 1);
  KvMemory memory(sample.shape());
  sample.Store(memory.view());
  if (absl::Status s =
          calibrator->Add(memory.view(), std::vector<int32_t>(kSampleTokens));
      !s.ok()) {
    return s;
  }
  codec::Calibrator::Options options;
  options.base_bits = base_bits;
  auto stored = calibrator->Finish(options);
  if (!stored.ok()) return stored.status();
  const std::vector<codec::StoredTransform> layer = stored->streams;
  for (int i = 1; i < model.num_layers; ++i) {
    stored->streams.insert(stored->streams.end(), layer.begin(), layer.end());
  }
  stored->geometry.layers = model.num_layers;
  stored->model = FingerprintOf(model);
  return stored;
}

void FillWithSpectra(const MutableKvView& kv) {
  const KvTensor layer = DrawLayer(kv.shape(), kv.shape().tokens, 2);
  for (int i = 0; i < kv.shape().layers; ++i) layer.Store(kv.Layer(i));
}

SpeedBed::SpeedBed(const KvShape& shape)
    : shape_(shape), positions_(shape.tokens), memory_(shape) {
  KDN_CHECK(shape.bytes() == kSpeedChunkBytes,
            "the chunk has kSpeedChunkBytes");
  rope_.theta = 500000.0;
  rope_.rotary_dim = shape.head_dim;
  std::iota(positions_.begin(), positions_.end(), 0);
}

absl::StatusOr<SpeedBed> SpeedBed::Create(double base_bits) {
  SpeedBed bed({.layers = 32,
                .kv_heads = 8,
                .tokens = 256,
                .head_dim = 128,
                .dtype = Dtype::kBf16});
  ModelSpec model;
  model.name = "speed";
  model.num_layers = bed.shape_.layers;
  model.num_kv_heads = bed.shape_.kv_heads;
  model.head_dim = bed.shape_.head_dim;
  model.dtype = bed.shape_.dtype;
  model.rope = bed.rope_;
  model.weights_digest = model.tokenizer_digest = "none";
  auto stored = CalibrateOnSpectra(model, base_bits);
  if (!stored.ok()) return stored.status();
  auto calibration = codec::ParseCalibration(codec::WriteCalibration(*stored));
  if (!calibration.ok()) return calibration.status();
  bed.calibration_ = *std::move(calibration);
  FillWithSpectra(bed.memory_.view());
  return bed;
}

absl::StatusOr<CodecSpeed> SpeedBed::Measure(Level level) {
  // K was drawn before RoPE, so its position is 0. Decoding rotates K to
  // `positions_`.
  const std::vector<int32_t> computed(shape_.tokens);
  absl::StatusOr<codec::ObjectHeader> header =
      HeaderOf(level, rope_, shape_, computed);
  if (!header.ok()) return header.status();
  KvMemory decoded(shape_);
  CodecSpeed speed;
  std::vector<double> encodes, decodes;  // seconds
  const double gigabytes = static_cast<double>(shape_.bytes()) / 1e9;
  for (int turn = 0; turn < kTurns; ++turn) {
    const absl::Time begin = SteadyNow();
    if (absl::Status status =
            codec::EncodeWhole(*header, calibration_, memory_.view(), object_);
        !status.ok()) {
      return status;
    }
    absl::Time before = SteadyNow();
    encodes.push_back(absl::ToDoubleSeconds(before - begin));
    for (int i = 0; i < kDecodesPerTurn; ++i) {
      if (absl::Status status = codec::DecodeWhole(object_, level, calibration_,
                                                   positions_, decoded.view());
          !status.ok()) {
        return status;
      }
      const absl::Time end = SteadyNow();
      decodes.push_back(absl::ToDoubleSeconds(end - before));
      before = end;
    }
  }
  speed.encode_gbps = gigabytes / MedianOf(encodes);
  speed.decode_gbps = gigabytes / MedianOf(decodes);
  speed.bits_per_value = 8.0 * static_cast<double>(object_.size()) *
                         SizeOf(shape_.dtype) /
                         static_cast<double>(shape_.bytes());
  return speed;
}

}  // namespace kdn::bench
