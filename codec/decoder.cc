#include "codec/decoder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/stream_codec.h"
#include "codec/stream_layout.h"
#include "kv/check.h"

namespace kdn::codec {

absl::StatusOr<ObjectDecoder> ObjectDecoder::Create(
    const ObjectIndex* index, absl::Span<const int32_t> positions) {
  KDN_CHECK(index != nullptr, "a decoder needs an index");
  const ObjectHeader& header = index->header();
  const std::string chunk = ShortHex(index->key());
  if (positions.size() != header.positions.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk ", chunk, " has ", header.positions.size(),
                     " tokens, got ", positions.size(), " positions"));
  }
  const auto lowest = std::min_element(positions.begin(), positions.end());
  if (*lowest < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk ", chunk, ": wanted position of token ",
                     lowest - positions.begin(), " is ", *lowest));
  }
  return ObjectDecoder(index, positions);
}

ObjectDecoder::ObjectDecoder(const ObjectIndex* index,
                             absl::Span<const int32_t> positions)
    : index_(index),
      rotations_(std::make_unique<KRotations>(
          index->header().rope, index->header().positions,
          std::vector<int32_t>(positions.begin(), positions.end()))) {}

absl::Status ObjectDecoder::CheckCall(Level level, int layer, int head_begin,
                                      int head_end,
                                      const KvShape& destination) const {
  const ObjectHeader& header = index_->header();
  KvShape expected = header.shape;
  expected.layers = 1;
  expected.kv_heads = head_end - head_begin;
  if (!header.levels.Has(level) || layer < 0 || layer >= header.shape.layers ||
      head_begin < 0 || head_begin >= head_end ||
      head_end > header.shape.kv_heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk ", ShortHex(index_->key()), " of ",
                     header.shape.layers, " layers and ", header.shape.kv_heads,
                     " heads has no level ", static_cast<int>(level), " layer ",
                     layer, " heads [", head_begin, ", ", head_end, ")"));
  }
  if (destination != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the destination shows ", destination.layers, " layers, ",
        destination.kv_heads, " heads, ", destination.tokens,
        " tokens, head_dim ", destination.head_dim, ", dtype ",
        static_cast<int>(destination.dtype), "; expected 1, ",
        expected.kv_heads, ", ", expected.tokens, ", ", expected.head_dim, ", ",
        static_cast<int>(expected.dtype)));
  }
  return absl::OkStatus();
}

absl::Status ObjectDecoder::DecodeStream(
    const StreamId& id, absl::Span<const std::byte> stream,
    int destination_head, const MutableKvView& destination) const {
  const StreamCodec& codec = CodecOf(id.level);
  const StreamShape shape = StreamShapeOf(index_->header().shape, id.part);
  if (!codec.MayHaveBytes(shape, stream.size())) {
    return absl::DataLossError(absl::StrCat("chunk ", ShortHex(index_->key()),
                                            " ", Name(id), ": only ",
                                            stream.size(), " bytes are here"));
  }
  const RowRotation* rotation =
      id.part == KvPart::kK ? rotations_->For(codec.k_form()) : nullptr;
  StreamReader reader(stream);
  const absl::Status decoded = codec.Decode(
      shape, &reader, rotation, RowsOf(destination, id.part, destination_head));
  reader.Next(reader.remaining());
  // A wrong checksum explains whatever the codec says, so it comes first.
  if (absl::Status s =
          VerifyChecksum(*index_, id, stream.size(), reader.crc32c());
      !s.ok()) {
    return s;
  }
  if (decoded.ok()) return decoded;
  return absl::Status(decoded.code(),
                      absl::StrCat("chunk ", ShortHex(index_->key()), " ",
                                   Name(id), ": ", decoded.message()));
}

absl::Status ObjectDecoder::DecodeLayer(
    Level level, int layer, int head_begin, int head_end,
    absl::Span<const std::byte> streams,
    const MutableKvView& destination) const {
  if (absl::Status s =
          CheckCall(level, layer, head_begin, head_end, destination.shape());
      !s.ok()) {
    return s;
  }
  size_t at = 0;
  for (const StreamId& id : StreamsOf({layer, level}, head_begin, head_end)) {
    const size_t bytes =
        std::min<size_t>(index_->Entry(id).bytes, streams.size() - at);
    if (absl::Status s = DecodeStream(id, streams.subspan(at, bytes),
                                      id.head - head_begin, destination);
        !s.ok()) {
      return s;
    }
    at += bytes;
  }
  if (at == streams.size()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("chunk ", ShortHex(index_->key()), " layer ", layer, ": ",
                   streams.size() - at, " bytes after the last stream"));
}

absl::Status ObjectDecoder::DecodeLayerOf(
    absl::Span<const std::byte> object, Level level, int layer, int head_begin,
    int head_end, const MutableKvView& destination) const {
  if (absl::Status s =
          CheckCall(level, layer, head_begin, head_end, destination.shape());
      !s.ok()) {
    return s;
  }
  if (object.size() != index_->object_bytes()) {
    return absl::DataLossError(absl::StrCat(
        "chunk ", ShortHex(index_->key()), ": object has ", object.size(),
        " bytes, expected ", index_->object_bytes()));
  }
  for (const StreamId& id : StreamsOf({layer, level}, head_begin, head_end)) {
    const StreamEntry& entry = index_->Entry(id);
    if (absl::Status s =
            DecodeStream(id, object.subspan(entry.offset, entry.bytes),
                         id.head - head_begin, destination);
        !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

}  // namespace kdn::codec
