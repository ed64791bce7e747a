#include "bench/own_levels.h"

#include <utility>

#include "codec/decoder.h"
#include "codec/encoder.h"
#include "kv/check.h"

namespace kdn::bench {

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
      .shape = shape,
      .rope = rope,
      .positions = {positions.begin(), positions.end()},
      .levels = LevelSet::Of(level).WithRefined(),
      .calibration = {}};
  return header;
}

KvMemory::KvMemory(const KvShape& shape) : shape_(shape) {
  absl::StatusOr<PrivateMemory> memory = PrivateMemory::Create(shape.bytes());
  KDN_CHECK(memory.ok(), "there is memory for a chunk");
  memory_ = *std::move(memory);
}

absl::Status EncodeInto(
    const codec::ObjectHeader& header,
    const std::shared_ptr<const codec::Calibration>& calibration,
    const KvView& kv, LineVector<std::byte>& object) {
  object.resize(codec::ObjectBytesMax(header));
  absl::StatusOr<codec::ObjectEncoder> encoder =
      codec::ObjectEncoder::Create(header, calibration, absl::MakeSpan(object));
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

absl::Status DecodeInto(
    absl::Span<const std::byte> object, Level level,
    const std::shared_ptr<const codec::Calibration>& calibration,
    absl::Span<const int32_t> positions, const MutableKvView& out) {
  const absl::StatusOr<codec::ObjectIndex> index =
      codec::ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return index.status();
  const absl::StatusOr<codec::ObjectDecoder> decoder =
      codec::ObjectDecoder::Create(&*index, calibration, positions);
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

absl::StatusOr<Coded> OwnLevel(
    Level level, std::shared_ptr<const codec::Calibration> calibration,
    const RopeSpec& rope, const KvTensor& kv,
    absl::Span<const int32_t> positions) {
  if (calibration == nullptr) {
    calibration =
        codec::Calibration::Uncalibrated(codec::GeometryOf(kv.shape()));
  }
  absl::StatusOr<codec::ObjectHeader> header =
      HeaderOf(level, rope, kv.shape(), positions);
  if (!header.ok()) return header.status();
  KvMemory memory(kv.shape());
  kv.Store(memory.view());
  LineVector<std::byte> object;
  if (absl::Status status =
          EncodeInto(*header, calibration, memory.view(), object);
      !status.ok()) {
    return status;
  }
  KvMemory decoded(kv.shape());
  if (absl::Status status =
          DecodeInto(object, level, calibration, positions, decoded.view());
      !status.ok()) {
    return status;
  }
  return Coded{KvTensor::Of(decoded.view()), object.size()};
}

}  // namespace kdn::bench
