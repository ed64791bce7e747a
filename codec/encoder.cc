#include "codec/encoder.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/header_check.h"
#include "codec/prefix_format.h"
#include "codec/stream_codec.h"
#include "codec/stream_layout.h"
#include "kv/check.h"
#include "kv/crc32c.h"

namespace kdn::codec {
namespace {

std::string ShapeText(const KvShape& shape) {
  const std::string_view dtype = Name(shape.dtype);
  return absl::StrCat(shape.layers, " layers, ", shape.kv_heads, " heads, ",
                      shape.tokens, " tokens, head_dim ", shape.head_dim, ", ",
                      absl::string_view(dtype.data(), dtype.size()));
}

// Whether some level of the set codes K before RoPE.
bool NeedsUndo(LevelSet levels) {
  for (Level level : LevelsOf(levels)) {
    if (CodecOf(level).k_form() == KForm::kBeforeRope) return true;
  }
  return false;
}

}  // namespace

size_t ObjectBytesMax(const ObjectHeader& header) {
  KDN_CHECK(CheckHeader(header).ok(), "header was not checked");
  const size_t heads = header.shape.kv_heads;
  size_t layer_bytes = 0;
  for (Level level : LevelsOf(header.levels)) {
    const StreamCodec& codec = CodecOf(level);
    size_t group_bytes = 0;
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      group_bytes += heads * codec.BytesMax(StreamShapeOf(header.shape, part));
    }
    layer_bytes += AlignUp(group_bytes);
  }
  return PrefixBytesFor(header) + layer_bytes * header.shape.layers;
}

absl::StatusOr<ObjectEncoder> ObjectEncoder::Create(ObjectHeader header,
                                                    absl::Span<std::byte> out) {
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  const size_t bytes_max = ObjectBytesMax(header);
  if (out.size() < bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("the object needs up to ", bytes_max, " bytes, ",
                     out.size(), " are reserved"));
  }
  return ObjectEncoder(std::move(header), out);
}

ObjectEncoder::ObjectEncoder(ObjectHeader header, absl::Span<std::byte> out)
    : header_(std::move(header)),
      out_(out),
      prefix_bytes_(PrefixBytesFor(header_)),
      cursor_(prefix_bytes_),
      entries_(StreamCount(header_.shape, header_.levels)) {
  if (NeedsUndo(header_.levels)) {
    undo_rope_ = RowRotation::Undo(RopeTable(header_.rope), header_.positions);
  }
  // Reused memory may hold an older object's header.
  std::memset(out_.data(), 0, ObjectIndex::kFixedPrefixBytes);
}

absl::StatusOr<StreamEntry> ObjectEncoder::EncodeStream(const StreamId& id,
                                                        const KvView& layer_kv,
                                                        size_t offset) {
  const StreamCodec& codec = CodecOf(id.level);
  const bool turn =
      id.part == KvPart::kK && codec.k_form() == KForm::kBeforeRope;
  const absl::Span<std::byte> room = out_.subspan(offset);
  const auto bytes = codec.Encode(StreamShapeOf(header_.shape, id.part),
                                  RowsOf(layer_kv, id.part, id.head),
                                  turn ? &*undo_rope_ : nullptr, room);
  if (!bytes.ok()) {
    return absl::Status(bytes.status().code(),
                        absl::StrCat(Name(id), ": ", bytes.status().message()));
  }
  return StreamEntry{offset, static_cast<uint32_t>(*bytes),
                     Crc32c(room.subspan(0, *bytes))};
}

absl::Status ObjectEncoder::EncodeLayer(const KvView& layer_kv) {
  if (next_layer_ == header_.shape.layers) {
    return absl::FailedPreconditionError(
        absl::StrCat("all ", next_layer_, " layers are encoded"));
  }
  KvShape expected = header_.shape;
  expected.layers = 1;
  if (layer_kv.shape() != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", next_layer_, " shows ", ShapeText(layer_kv.shape()),
        "; the header says ", ShapeText(expected)));
  }
  size_t cursor = cursor_;  // kept only when every stream is there
  for (Level level : LevelsOf(header_.levels)) {
    const size_t aligned = AlignUp(cursor);
    std::memset(out_.data() + cursor, 0, aligned - cursor);
    cursor = aligned;
    for (const StreamId& id :
         StreamsOf({next_layer_, level}, 0, header_.shape.kv_heads)) {
      const auto entry = EncodeStream(id, layer_kv, cursor);
      if (!entry.ok()) return entry.status();
      entries_[SlotOf(header_.shape, header_.levels, id)] = *entry;
      cursor += entry->bytes;
    }
  }
  cursor_ = cursor;
  ++next_layer_;
  return absl::OkStatus();
}

absl::StatusOr<ObjectEncoder::Finished> ObjectEncoder::Finish() {
  if (next_layer_ != header_.shape.layers) {
    return absl::FailedPreconditionError(
        absl::StrCat("the object has ", next_layer_, " of ",
                     header_.shape.layers, " layers"));
  }
  KDN_CHECK(cursor_ <= out_.size(), "streams past the reserved memory");
  const absl::Span<std::byte> prefix = out_.subspan(0, prefix_bytes_);
  WritePrefix(header_, entries_, prefix);
  return Finished{KeyOf(header_.identity), VersionOf(prefix), cursor_};
}

}  // namespace kdn::codec
