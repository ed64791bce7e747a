// Parses, verifies and decodes any bytes as an object. Then twice more: with a
// correct checksum of the prefix, and with correct checksums of the streams as
// well, so that mutations get past the checksums.

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "codec/decoder.h"
#include "codec/format/object.h"
#include "codec/format/prefix_format.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"
#include "tests/fuzz/allocated_bytes.h"
#include "tests/fuzz/fuzz_target.h"

namespace kdn::codec {
namespace {

// Where version 3 has the CRC of the prefix, and the field that readers ignore
// (docs/formats.md).
constexpr size_t kCrcAt = 12;
constexpr size_t kUnreadAt = 128;

// A prefix of version 3 that parses is exactly what the encoder would write,
// apart from the field that readers ignore. Version 3 can express every prefix
// of version 2.
void CheckCanonical(const ObjectIndex& index,
                    absl::Span<const std::byte> object) {
  ObjectHeader header = index.header();
  const bool newest = header.depth.has_value();
  if (!newest) header.depth = header.identity.condition.is_zero() ? 0 : 1;
  std::vector<StreamEntry> entries(StreamCount(GridOf(header), header.levels));
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    for (const StreamId& id : StreamsOf(GridOf(header), group)) {
      entries[SlotOf(GridOf(header), header.levels, id)] = index.Entry(id);
    }
  }
  std::vector<std::byte> prefix(PrefixBytesFor(header));
  WritePrefix(header, entries, absl::MakeSpan(prefix));
  if (!newest) {
    KDN_CHECK(ReadPrefix(prefix).ok(), "version 3 can say what version 2 says");
    return;
  }
  KDN_CHECK(prefix.size() == index.prefix_bytes(), "the length is the same");
  std::copy_n(object.data() + kCrcAt, sizeof(uint32_t), prefix.data() + kCrcAt);
  std::copy_n(object.data() + kUnreadAt, ChunkKey::kSize,
              prefix.data() + kUnreadAt);
  KDN_CHECK(std::memcmp(prefix.data(), object.data(), prefix.size()) == 0,
            "writing a header gives the bytes that were parsed");
}

// The most bytes that parsing and verifying an object may allocate, freed or
// not. The header, the index entries and the lists of streams are all in
// proportion to the object's bytes.
constexpr size_t ParsedMax(size_t object_bytes) {
  return 4 * object_bytes + 4096;
}

// The most bytes that decoding a layer at one level may allocate, without the
// rows themselves. Values and floats are in proportion to the elements of the
// header's shape, angles to its rotary_dim, patches and raw tokens to the
// bytes of the streams.
size_t DecodedMax(const ObjectHeader& header, size_t object_bytes) {
  const KvShape& shape = header.shape;
  const size_t rows = 2 * shape.kv_heads * (size_t{32} + shape.tokens);
  return 8 * rows * (16 + shape.head_dim) + 4 * object_bytes + 4096;
}

void DecodeEveryLayer(const ObjectIndex& index,
                      absl::Span<const std::byte> object) {
  // A few bytes of a stream may stand for very many rows. A reader has memory
  // only for the rows that it expects.
  constexpr size_t kDestinationBytesMax = 16 << 20;
  const ObjectHeader& header = index.header();
  if (header.shape.layer_bytes() > kDestinationBytesMax) return;
  const auto calibration = TestCalibrationOf(header);
  if (calibration == nullptr && HasTransformCoded(header.levels)) return;
  std::vector<int32_t> wanted = header.positions;
  for (size_t i = 0; i < wanted.size(); i += 2) wanted[i] /= 2;
  const auto decoder = ObjectDecoder::Create(&index, calibration, wanted);
  if (!decoder.ok()) {
    KDN_CHECK(absl::IsUnimplemented(decoder.status()), "positions fit");
    return;
  }
  KvShape layer = header.shape;
  layer.layers = 1;
  KvBuffer destination(layer, Layout::kPadded);
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    const size_t before = fuzz::AllocatedBytes();
    const absl::Status status =
        decoder->DecodeLayerOf(object, group.level, group.layer, 0,
                               header.shape.kv_heads, destination.view());
    KDN_CHECK(
        fuzz::AllocatedBytes() - before <= DecodedMax(header, object.size()),
        "memory is taken in proportion to the layer that was asked for");
    KDN_CHECK(status.ok() || absl::IsDataLoss(status), "only damage fails");
  }
}

// Uses the libraries once, so that their set-up (OpenSSL's, for the hash of the
// key) is not counted for an object.
void UseLibraries() {
  const auto object = RandomObject(ChunkOptions(), 1);
  const auto index = ObjectIndex::Parse(object, object.size());
  KDN_CHECK(index.ok() && VerifyObject(*index, object).ok(),
            "the object is whole");
}

void Consume(absl::Span<const std::byte> object) {
  const size_t before = fuzz::AllocatedBytes();
  const auto index = ObjectIndex::Parse(object, object.size());
  const absl::Status verified =
      index.ok() ? VerifyObject(*index, object) : index.status();
  KDN_CHECK(fuzz::AllocatedBytes() - before <= ParsedMax(object.size()),
            "memory is taken in proportion to the object");
  if (!index.ok()) {
    KDN_CHECK(absl::IsDataLoss(index.status()) ||
                  absl::IsUnimplemented(index.status()),
              "bad bytes are DATA_LOSS, unknown versions and sections "
              "UNIMPLEMENTED");
    return;
  }
  CheckCanonical(*index, object);
  KDN_CHECK(verified.ok() || absl::IsDataLoss(verified), "only damage fails");
  DecodeEveryLayer(*index, object);
}

}  // namespace
}  // namespace kdn::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  [[maybe_unused]] static const bool once = (kdn::codec::UseLibraries(), true);
  std::vector<std::byte> object(size);
  if (size > 0) std::memcpy(object.data(), data, size);
  kdn::codec::Consume(object);
  kdn::codec::RepairPrefixCrc(absl::MakeSpan(object));
  kdn::codec::Consume(object);
  kdn::codec::RepairStreamCrcs(absl::MakeSpan(object));
  kdn::codec::Consume(object);
  return 0;
}

namespace kdn::fuzz {
namespace {

std::string TextOf(absl::Span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// Adds headers of models that no encoder supports, and headers with sections.
void AddHeaderSeeds(std::vector<std::string>* seeds) {
  codec::ChunkOptions options;
  options.levels = LevelSet::Of(Level::kInt8);
  const codec::ObjectHeader plain = codec::HeaderOf(options);
  codec::ObjectHeader header = plain;
  header.layer_ropes.assign(2, plain.rope);
  header.layer_ropes[1].theta = 1e6;
  seeds->push_back(TextOf(codec::ObjectOfZeros(header)));
  header.shape.v_head_dim = 12;
  header.identity.condition = KeyOf(plain);
  header.depth = 3;
  seeds->push_back(TextOf(codec::ObjectOfZeros(header)));
  for (const bool critical : {false, true}) {
    header = plain;
    header.sections = {{1, critical, std::vector<std::byte>(9)},
                       {77, false, {std::byte{1}}}};
    seeds->push_back(TextOf(codec::ObjectOfZeros(header)));
  }
}

// Adds objects that the encoder of version 2 wrote.
void AddOlderSeeds(std::vector<std::string>* seeds) {
  for (const char* name :
       {"bf16", "fp16-gptj-yarn", "few-tokens", "chained-edited"}) {
    std::ifstream file(std::string(KDN_SOURCE_DIR) + "/tests/codec/golden/2/" +
                           name + ".kdnobj",
                       std::ios::binary);
    KDN_CHECK(file.good(), "the golden file is there");
    seeds->emplace_back(std::istreambuf_iterator<char>(file),
                        std::istreambuf_iterator<char>());
  }
}

}  // namespace

std::vector<std::string> Seeds() {
  using codec::LevelsOf;
  std::vector<std::string> seeds;
  AddHeaderSeeds(&seeds);
  AddOlderSeeds(&seeds);
  uint32_t number = 0;
  for (Dtype dtype : {Dtype::kBf16, Dtype::kFp16, Dtype::kFp32}) {
    for (LevelSet levels :
         {LevelSet::Of(Level::kLossless), LevelSet::Of(Level::kInt8),
          LevelSet::Of(Level::kBase2).WithRefined(), codec::kApartLevels}) {
      codec::ChunkOptions options;
      options.shape.dtype = dtype;
      // With more tokens, streams hold coded symbols; with fewer, plain rows.
      options.shape.tokens = number % 2 == 0 ? 3 : 24;
      options.shape.kv_heads = number % 2 == 0 ? 3 : 2;
      options.levels = levels;
      options.pairing =
          number % 4 < 2 ? RopePairing::kNeoX : RopePairing::kGptJ;
      options.rotary_dim = number % 3 == 0 ? 8 : 4;
      const auto object = codec::RandomObject(options, ++number);
      codec::KvBuffer decoded(options.shape, codec::Layout::kPadded);
      for (Level level : LevelsOf(levels)) {
        KDN_CHECK(
            codec::DecodeAll(object, level, codec::HeaderOf(options).positions,
                             decoded.view())
                .ok(),
            "what was encoded decodes");
      }
      seeds.push_back(TextOf(object));
    }
  }
  codec::ChunkOptions joint;
  joint.levels = LevelSet::All();
  codec::KvBuffer kv(joint.shape, codec::Layout::kTokenMajor);
  seeds.push_back(TextOf(codec::EncodeWith(
      codec::MadeJointCalibration(codec::GeometryOf(joint.shape), 3),
      codec::HeaderOf(joint), kv.view())));
  return seeds;
}

}  // namespace kdn::fuzz
