#include "tests/codec/test_chunk.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "codec/format/byte_io.h"
#include "codec/format/fixed_fields.h"
#include "codec/format/prefix_format.h"
#include "codec/format/stream_layout.h"
#include "codec/stream_codec.h"
#include "kv/check.h"
#include "kv/crc32c.h"

namespace kdn::codec {

ObjectHeader HeaderOf(const ChunkOptions& options) {
  ObjectHeader header{
      .identity = {.fingerprint = {},
                   .ns = *Namespace::Parse("tenant"),
                   .condition = {},
                   .tokens = std::vector<int32_t>(options.shape.tokens)},
      .shape = options.shape,
      .rope = {},
      .positions = std::vector<int32_t>(options.shape.tokens),
      .levels = options.levels,
      .calibration = {}};
  std::array<uint8_t, ChunkKey::kSize> pattern;
  std::iota(pattern.begin(), pattern.end(), uint8_t{1});
  header.identity.fingerprint = ModelFingerprint(pattern);
  header.rope.rotary_dim = options.rotary_dim;
  header.rope.pairing = options.pairing;
  header.rope.attention_factor = options.attention_factor;
  for (int i = 0; i < options.shape.tokens; ++i) {
    header.identity.tokens[i] = 7 * i + 3;
    header.positions[i] = options.first_position + i;
  }
  return header;
}

KvStrides StridesOf(Layout layout, const KvShape& shape) {
  switch (layout) {
    case Layout::kTokenMajor:
      return KvStrides::TokenMajor(shape);
    case Layout::kHeadMajor:
      return KvStrides::HeadMajor(shape);
    case Layout::kPadded:
      break;
  }
  // A few bytes between rows, so that elements are not aligned.
  KvStrides strides;
  strides.head = static_cast<int64_t>(shape.head_bytes()) + 3;
  strides.token = strides.head * shape.kv_heads + 5;
  strides.part = strides.token * shape.tokens + 7;
  strides.layer = 2 * strides.part + 11;
  return strides;
}

AlignedMemory::AlignedMemory(size_t bytes, std::byte fill)
    : lines_(bytes / sizeof(Line) + 1) {
  std::memset(data(), static_cast<int>(fill), this->bytes().size());
}

KvBuffer::KvBuffer(const KvShape& shape, Layout layout, std::byte fill)
    : shape_(shape),
      strides_(StridesOf(layout, shape)),
      memory_(strides_.layer * shape.layers, fill) {}

void KvBuffer::FillRandom(std::mt19937* rng) {
  std::normal_distribution<float> normal;
  std::vector<float> row(shape_.head_dim);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < shape_.kv_heads; ++head) {
        for (int token = 0; token < shape_.tokens; ++token) {
          for (float& value : row) value = normal(*rng);
          StoreFloats(shape_.dtype, row.data(), row.size(),
                      view().At(layer, part, head, token));
        }
      }
    }
  }
}

void KvBuffer::Set(int layer, KvPart part, int head, int token, int dim,
                   float value) {
  StoreFloats(shape_.dtype, &value, 1,
              view().At(layer, part, head, token) + dim * SizeOf(shape_.dtype));
}

std::vector<float> KvBuffer::Row(int layer, KvPart part, int head,
                                 int token) const {
  std::vector<float> row(shape_.head_dim);
  LoadFloats(shape_.dtype, view().At(layer, part, head, token), row.size(),
             row.data());
  return row;
}

bool SameElements(const KvView& a, const KvView& b) {
  if (a.shape() != b.shape()) return false;
  for (int layer = 0; layer < a.shape().layers; ++layer) {
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < a.shape().kv_heads; ++head) {
        for (int token = 0; token < a.shape().tokens; ++token) {
          if (std::memcmp(a.At(layer, part, head, token),
                          b.At(layer, part, head, token),
                          a.shape().head_bytes()) != 0) {
            return false;
          }
        }
      }
    }
  }
  return true;
}

absl::StatusOr<std::shared_ptr<const Calibration>> CalibrationOf(
    const ObjectHeader& header) {
  // Static, because making a calibration takes longer than coding a small
  // chunk.
  static CalibrationSet set;
  return set.ForObject(header);
}

std::shared_ptr<const Calibration> TestCalibrationOf(
    const ObjectHeader& header) {
  const auto calibration = CalibrationOf(header);
  return calibration.ok() ? *calibration : nullptr;
}

std::vector<std::byte> Encode(const ObjectHeader& header, const KvView& kv) {
  return EncodeWith(TestCalibrationOf(header), header, kv);
}

std::vector<std::byte> EncodeWith(
    std::shared_ptr<const Calibration> calibration, const ObjectHeader& header,
    const KvView& kv) {
  std::vector<std::byte> object(ObjectBytesMax(header));
  auto encoder = ObjectEncoder::Create(header, std::move(calibration),
                                       absl::MakeSpan(object));
  KDN_CHECK(encoder.ok(), "test header is valid");
  for (int layer = 0; layer < header.shape.layers; ++layer) {
    KDN_CHECK(encoder->EncodeLayer(kv.Layer(layer)).ok(), "test KV is valid");
  }
  const auto finished = encoder->Finish();
  KDN_CHECK(finished.ok(), "all layers are there");
  object.resize(finished->bytes);
  return object;
}

std::vector<std::byte> RandomObject(const ChunkOptions& options,
                                    uint32_t seed) {
  std::mt19937 rng(seed);
  KvBuffer kv(options.shape, Layout::kTokenMajor);
  kv.FillRandom(&rng);
  return Encode(HeaderOf(options), kv.view());
}

absl::Status DecodeAll(const std::vector<std::byte>& object, Level level,
                       absl::Span<const int32_t> positions,
                       const KvDestination& destination) {
  const auto index = ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return index.status();
  const auto calibration = CalibrationOf(index->header());
  if (!calibration.ok()) return calibration.status();
  return DecodeAllWith(*calibration, object, level, positions, destination);
}

absl::Status DecodeAllWith(std::shared_ptr<const Calibration> calibration,
                           const std::vector<std::byte>& object, Level level,
                           absl::Span<const int32_t> positions,
                           const KvDestination& destination) {
  const auto index = ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return index.status();
  const auto decoder =
      ObjectDecoder::Create(&*index, std::move(calibration), positions);
  if (!decoder.ok()) return decoder.status();
  for (int layer = 0; layer < index->header().shape.layers; ++layer) {
    absl::Status status = decoder->DecodeLayerOf(object, level, layer, 0,
                                                 index->header().shape.kv_heads,
                                                 destination.Layer(layer));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

EncodedChunk::EncodedChunk(const ChunkOptions& options, Layout layout,
                           uint32_t seed)
    : header(HeaderOf(options)), kv(options.shape, layout) {
  std::mt19937 rng(seed);
  kv.FillRandom(&rng);
  object = Encode(header, kv.view());
  index.emplace(*ObjectIndex::Parse(object, object.size()));
}

ObjectDecoder EncodedChunk::Decoder(absl::Span<const int32_t> positions) const {
  return *ObjectDecoder::Create(&*index, TestCalibrationOf(header), positions);
}

std::vector<int32_t> Shifted(std::vector<int32_t> positions, int32_t by) {
  for (int32_t& position : positions) position += by;
  return positions;
}

std::vector<std::byte> ObjectOfZeros(const ObjectHeader& header) {
  KDN_CHECK(!HasTransformCoded(header.levels),
            "zeros are no stream of a transform-coded level");
  std::vector<StreamEntry> entries(StreamCount(GridOf(header), header.levels));
  const uint64_t prefix_bytes = PrefixBytesFor(header);
  uint64_t end = prefix_bytes;
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    end = AlignUp(end);
    for (const StreamId& id : StreamsOf(GridOf(header), group)) {
      const size_t bytes = CodecOf(id.level).BytesMax(
          StreamShapeOf(GridOf(header), id), id.level);
      entries[SlotOf(GridOf(header), header.levels, id)] = {
          end, static_cast<uint32_t>(bytes),
          Crc32c(std::vector<std::byte>(bytes))};
      end += bytes;
    }
  }
  std::vector<std::byte> object(end);
  WritePrefix(header, entries, absl::MakeSpan(object).first(prefix_bytes));
  return object;
}

// Stops at the first section whose length goes past the end.
void RepairSectionCrcs(const FixedFields& fixed, absl::Span<std::byte> object) {
  constexpr size_t kHeadBytes = 12;
  constexpr size_t kLengthOffset = 4;
  constexpr size_t kCrcOffset = 8;
  absl::Span<std::byte> left =
      object.subspan(fixed.sections_offset(), fixed.sections_bytes);
  while (left.size() >= kHeadBytes) {
    const auto bytes = ByteReader(left.subspan(kLengthOffset)).Read<uint32_t>();
    if (bytes > left.size() - kHeadBytes) return;
    ByteWriter(left.subspan(kCrcOffset))
        .Write<uint32_t>(Crc32c(left.subspan(kHeadBytes, bytes)));
    left.remove_prefix(kHeadBytes + bytes);
  }
}

void RepairPrefixCrc(absl::Span<std::byte> object) {
  const auto fixed = ReadFixed(object);
  if (!fixed.ok() || fixed->prefix_bytes > object.size()) return;
  RepairSectionCrcs(*fixed, object);
  const uint32_t crc = PrefixCrc(object.subspan(0, fixed->prefix_bytes));
  ByteWriter(object.subspan(kCrcOffset)).Write<uint32_t>(crc);
}

void RepairStreamCrcs(absl::Span<std::byte> object) {
  const auto index = ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return;
  const ObjectHeader& header = index->header();
  const uint64_t entries_offset = ReadFixed(object)->entries_offset();
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    for (const StreamId& id : StreamsOf(GridOf(header), group)) {
      const StreamEntry& entry = index->Entry(id);
      const size_t slot = SlotOf(GridOf(header), header.levels, id);
      ByteWriter(
          object.subspan(entries_offset + slot * kEntryBytes + kEntryCrcOffset))
          .Write<uint32_t>(Crc32c(object.subspan(entry.offset, entry.bytes)));
    }
  }
  RepairPrefixCrc(object);
}

}  // namespace kdn::codec
