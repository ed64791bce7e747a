#include "codec/whole_object.h"

#include "codec/decoder.h"
#include "codec/encoder.h"

namespace kdn::codec {

absl::Status EncodeWhole(const ObjectHeader& header,
                         const std::shared_ptr<const Calibration>& calibration,
                         const KvView& kv, LineVector<std::byte>& object) {
  object.resize(ObjectBytesMax(header));
  absl::StatusOr<ObjectEncoder> encoder =
      ObjectEncoder::Create(header, calibration, absl::MakeSpan(object));
  if (!encoder.ok()) return encoder.status();
  for (int layer = 0; layer < header.shape.layers; ++layer) {
    if (absl::Status s = encoder->EncodeLayer(kv.Layer(layer)); !s.ok()) {
      return s;
    }
  }
  const absl::StatusOr<ObjectEncoder::Finished> finished = encoder->Finish();
  if (!finished.ok()) return finished.status();
  object.resize(finished->bytes);
  return absl::OkStatus();
}

absl::Status DecodeWhole(absl::Span<const std::byte> object, Level level,
                         const std::shared_ptr<const Calibration>& calibration,
                         absl::Span<const int32_t> positions,
                         const MutableKvView& out) {
  const absl::StatusOr<ObjectIndex> index =
      ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return index.status();
  const absl::StatusOr<ObjectDecoder> decoder =
      ObjectDecoder::Create(&*index, calibration, positions);
  if (!decoder.ok()) return decoder.status();
  for (int layer = 0; layer < out.shape().layers; ++layer) {
    if (absl::Status s = decoder->DecodeLayerOf(
            object, level, layer, 0, out.shape().kv_heads, out.Layer(layer));
        !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

}  // namespace kdn::codec
