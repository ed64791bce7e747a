#include "bench/own_levels.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/object.h"
#include "kv/check.h"

namespace kdn::bench {
namespace {

constexpr int kTurns = 5;

absl::StatusOr<codec::ObjectHeader> HeaderOf(
    Level level, const RopeSpec& rope, const KvShape& shape,
    absl::Span<const int32_t> positions) {
  absl::StatusOr<Namespace> ns = Namespace::Parse("bench");
  if (!ns.ok()) return ns.status();
  codec::ObjectHeader header{
      .identity = {.fingerprint = {},
                   .ns = *std::move(ns),
                   .condition = {},
                   .tokens = {positions.begin(), positions.end()}},
      .placement = {},
      .shape = shape,
      .rope = rope,
      .positions = {positions.begin(), positions.end()},
      .levels = LevelSet::Of(level)};
  return header;
}

// Encodes into `object`, which is resized to what was needed.
absl::Status EncodeInto(const codec::ObjectHeader& header, const KvView& kv,
                        std::vector<std::byte>& object) {
  object.resize(codec::ObjectBytesMax(header));
  absl::StatusOr<codec::ObjectEncoder> encoder =
      codec::ObjectEncoder::Create(header, absl::MakeSpan(object));
  if (!encoder.ok()) return encoder.status();
  for (int layer = 0; layer < header.shape.layers; ++layer) {
    if (absl::Status status = encoder->EncodeLayer(kv.Layer(layer));
        !status.ok()) {
      return status;
    }
  }
  const absl::StatusOr<codec::ObjectEncoder::Finished> finished =
      encoder->Finish();
  if (!finished.ok()) return finished.status();
  object.resize(finished->bytes);
  return absl::OkStatus();
}

absl::Status DecodeInto(absl::Span<const std::byte> object, Level level,
                        absl::Span<const int32_t> positions,
                        const MutableKvView& out) {
  const absl::StatusOr<codec::ObjectIndex> index =
      codec::ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return index.status();
  const absl::StatusOr<codec::ObjectDecoder> decoder =
      codec::ObjectDecoder::Create(&*index, positions);
  if (!decoder.ok()) return decoder.status();
  for (int layer = 0; layer < out.shape().layers; ++layer) {
    if (absl::Status status = decoder->DecodeLayerOf(
            object, level, layer, 0, out.shape().kv_heads, out.Layer(layer));
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

// Memory for KV whose rows begin at cache lines, as an engine's do.
class KvMemory {
 public:
  explicit KvMemory(const KvShape& shape)
      : lines_(shape.bytes() / sizeof(Line) + 1), shape_(shape) {}
  MutableKvView view() {
    return {lines_.front().bytes, shape_, KvStrides::HeadMajor(shape_)};
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> lines_;
  KvShape shape_;
};

}  // namespace

absl::StatusOr<Coded> OwnLevel(Level level, const RopeSpec& rope,
                               const KvTensor& kv,
                               absl::Span<const int32_t> positions) {
  absl::StatusOr<codec::ObjectHeader> header =
      HeaderOf(level, rope, kv.shape(), positions);
  if (!header.ok()) return header.status();
  KvMemory memory(kv.shape());
  kv.Store(memory.view());
  std::vector<std::byte> object;
  if (absl::Status status = EncodeInto(*header, memory.view(), object);
      !status.ok()) {
    return status;
  }
  KvMemory decoded(kv.shape());
  if (absl::Status status =
          DecodeInto(object, level, positions, decoded.view());
      !status.ok()) {
    return status;
  }
  return Coded{KvTensor::Of(decoded.view()), object.size()};
}

absl::StatusOr<CodecSpeed> MeasureSpeed(Level level) {
  const KvShape shape = {.layers = 32,
                         .kv_heads = 8,
                         .tokens = 256,
                         .head_dim = 128,
                         .dtype = Dtype::kBf16};
  KDN_CHECK(shape.bytes() == kSpeedChunkBytes, "the chunk of the header");
  RopeSpec rope;
  rope.theta = 500000.0;
  rope.rotary_dim = shape.head_dim;
  std::vector<int32_t> positions(shape.tokens);
  std::iota(positions.begin(), positions.end(), 0);
  absl::StatusOr<codec::ObjectHeader> header =
      HeaderOf(level, rope, shape, positions);
  if (!header.ok()) return header.status();
  KvTensor kv(shape);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& x : kv.values()) x = normal(random);
  KvMemory memory(shape);
  kv.Store(memory.view());
  std::vector<int32_t> wanted(positions);
  for (int32_t& position : wanted) position += 1000;
  CodecSpeed speed;
  std::vector<std::byte> object;
  const double gigabytes = static_cast<double>(shape.bytes()) / 1e9;
  for (int turn = 0; turn < kTurns; ++turn) {
    const absl::Time begin = absl::Now();
    if (absl::Status status = EncodeInto(*header, memory.view(), object);
        !status.ok()) {
      return status;
    }
    const absl::Time encoded = absl::Now();
    if (absl::Status status = DecodeInto(object, level, wanted, memory.view());
        !status.ok()) {
      return status;
    }
    const absl::Time decoded = absl::Now();
    speed.encode_gbps = std::max(
        speed.encode_gbps, gigabytes / absl::ToDoubleSeconds(encoded - begin));
    speed.decode_gbps =
        std::max(speed.decode_gbps,
                 gigabytes / absl::ToDoubleSeconds(decoded - encoded));
  }
  return speed;
}

}  // namespace kdn::bench
