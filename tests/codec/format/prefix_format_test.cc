// The header fields that version 2 does not have: depth, a rope for each layer,
// a head_dim of V, sections.

#include "codec/format/prefix_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "codec/format/fixed_fields.h"
#include "codec/format/header_check.h"
#include "codec/format/stream_layout.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

using testing::HasSubstr;

ObjectHeader Header() {
  ChunkOptions options;
  options.shape.layers = 5;
  options.levels = LevelSet::Of(Level::kLossless).With(Level::kInt8);
  return HeaderOf(options);
}

// As in Gemma, some layers have another theta: here every third one.
ObjectHeader WithLayerRopes() {
  ObjectHeader header = Header();
  for (int layer = 0; layer < header.shape.layers; ++layer) {
    header.layer_ropes.push_back(header.rope);
    if (layer % 3 == 2) header.layer_ropes.back().theta = 1e6;
  }
  return header;
}

// As in models with a compressed V, rows of V are longer than rows of K.
ObjectHeader WithLongerV() {
  ObjectHeader header = Header();
  header.shape.v_head_dim = 20;
  return header;
}

absl::StatusOr<ObjectIndex> Parsed(const std::vector<std::byte>& object) {
  return ObjectIndex::Parse(object, object.size());
}

// Parses the object with one byte of the prefix changed and its CRCs repaired.
absl::Status ParseWith(std::vector<std::byte> object, size_t at,
                       std::byte value) {
  object[at] = value;
  RepairPrefixCrc(absl::MakeSpan(object));
  return Parsed(object).status();
}

TEST(PrefixFormat, OneRopeCostsNoTable) {
  const ObjectHeader header = Header();
  const ObjectHeader two = WithLayerRopes();
  const FixedFields one_fields = FixedFieldsOf(header);
  const FixedFields two_fields = FixedFieldsOf(two);
  EXPECT_EQ(one_fields.ropes, 1u);
  EXPECT_EQ(two_fields.ropes, 2u);
  EXPECT_EQ(two_fields.entries_offset(), one_fields.entries_offset() + 68 + 5);
}

TEST(PrefixFormat, CarriesARopeForEachLayer) {
  const ObjectHeader header = WithLayerRopes();
  const auto object = ObjectOfZeros(header);
  const auto index = Parsed(object);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_TRUE(VerifyObject(*index, object).ok());
  EXPECT_EQ(index->header().rope, header.rope);
  EXPECT_EQ(index->header().layer_ropes, header.layer_ropes);
}

TEST(PrefixFormat, ARopeTableHasOneSpelling) {
  const auto object = ObjectOfZeros(WithLayerRopes());
  ASSERT_TRUE(Parsed(object).ok());
  const size_t table = 64 + 4 * 32;
  const size_t of_layer = table + 2 * 68;
  ASSERT_EQ(object[of_layer + 2], std::byte{1});
  // A layer names a rope that is missing; the first layer names the second
  // rope; no layer names the second rope.
  for (const auto& [layer, rope] :
       {std::pair<int, int>{1, 2}, {0, 1}, {2, 0}}) {
    EXPECT_EQ(ParseWith(object, of_layer + layer, std::byte(rope)).code(),
              absl::StatusCode::kDataLoss)
        << layer << " " << rope;
  }
  // The same descriptor twice.
  auto twice = object;
  std::memcpy(twice.data() + table + 68, twice.data() + table, 68);
  RepairPrefixCrc(absl::MakeSpan(twice));
  EXPECT_THAT(std::string(Parsed(twice).status().message()),
              HasSubstr("equals an earlier one"));
  // Reserved bytes of a descriptor, and more descriptors than layers.
  EXPECT_EQ(ParseWith(object, table + 2, std::byte{1}).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(ParseWith(object, 34, std::byte{6}).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(ParseWith(object, 34, std::byte{0}).code(),
            absl::StatusCode::kDataLoss);
}

TEST(PrefixFormat, CarriesAnotherHeadDimOfV) {
  const ObjectHeader header = WithLongerV();
  const auto object = ObjectOfZeros(header);
  const auto index = Parsed(object);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_TRUE(VerifyObject(*index, object).ok());
  EXPECT_EQ(index->header().shape, header.shape);
  // int8 has a scale for each channel of K and for each token of V.
  EXPECT_EQ(index->Entry({Level::kInt8, 1, KvPart::kK, 2}).bytes,
            4u * 8 + 5 * 8);
  EXPECT_EQ(index->Entry({Level::kInt8, 1, KvPart::kV, 2}).bytes,
            4u * 5 + 5 * 20);
  EXPECT_EQ(ParseWith(object, 36, std::byte{0}).code(),
            absl::StatusCode::kDataLoss);
}

TEST(PrefixFormat, LosslessStreamsHaveNoError) {
  const ObjectHeader header = Header();
  const auto object = ObjectOfZeros(header);
  const size_t entries = FixedFieldsOf(header).entries_offset();
  const size_t exact =
      StreamCount(header.shape, LevelSet::Of(Level::kLossless));
  // The first bytes of error_max and error_rms: a tiny error.
  for (const size_t field : {16, 20}) {
    const size_t last = entries + (exact - 1) * kEntryBytes + field;
    EXPECT_EQ(ParseWith(object, last, std::byte{1}).code(),
              absl::StatusCode::kDataLoss);
    EXPECT_TRUE(ParseWith(object, last + kEntryBytes, std::byte{1}).ok())
        << "an error of int8";
  }
}

TEST(StreamLayout, KAndVMayShareStreamsDifferently) {
  KvShape shape = {.layers = 3,
                   .kv_heads = 4,
                   .tokens = 5,
                   .head_dim = 64,
                   .dtype = Dtype::kBf16,
                   .v_head_dim = 128};
  const LevelSet levels = LevelSet::All();
  // A stream of base has two heads of K, or one head of V.
  EXPECT_EQ(StreamsOf(shape, {0, Level::kBase}).size(), 6u);
  EXPECT_EQ(StreamsOf(shape, {0, Level::kBase}, 1, 2).size(), 2u);
  std::vector<bool> seen(StreamCount(shape, levels));
  for (const StreamGroup& group : GroupsOf(shape, levels)) {
    for (const StreamId& id : StreamsOf(shape, group)) {
      const size_t slot = SlotOf(shape, levels, id);
      ASSERT_LT(slot, seen.size());
      EXPECT_FALSE(seen[slot]) << Name(id);
      seen[slot] = true;
    }
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), false), 0);
}

TEST(CheckSupported, NamesTheFieldThatIsNotCoded) {
  EXPECT_TRUE(CheckSupported(Header()).ok());
  ObjectHeader critical = Header();
  critical.sections = {{7, false, {}}, {11, true, {}}};
  for (const auto& [header, name] :
       {std::pair<ObjectHeader, const char*>{WithLayerRopes(), "layer_ropes"},
        {WithLongerV(), "v_head_dim"},
        {critical, "section 11"}}) {
    ASSERT_TRUE(CheckHeader(header).ok());
    std::vector<std::byte> room(ObjectBytesMax(header));
    const absl::Status encoder =
        ObjectEncoder::Create(header, nullptr, absl::MakeSpan(room)).status();
    EXPECT_EQ(encoder.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(encoder.message()), HasSubstr(name));
    const auto index = Parsed(ObjectOfZeros(header));
    const absl::Status decoder =
        index.ok()
            ? ObjectDecoder::Create(&*index, nullptr, header.positions).status()
            : index.status();
    EXPECT_EQ(decoder.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(decoder.message()), HasSubstr(name));
  }
}

TEST(Sections, UnknownOnesAreSkippedUnlessTheyAreCritical) {
  ObjectHeader header = Header();
  header.sections = {{static_cast<uint16_t>(SectionId::kRowMap), false,
                      std::vector<std::byte>(37, std::byte{5})},
                     {300, false, {std::byte{1}}}};
  const auto object = ObjectOfZeros(header);
  const auto index = Parsed(object);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->header().sections, header.sections);
  KvBuffer decoded(header.shape, Layout::kTokenMajor);
  EXPECT_TRUE(
      DecodeAll(object, Level::kLossless, header.positions, decoded.view())
          .ok());
  header.sections[0].critical = true;
  const absl::Status refused = Parsed(ObjectOfZeros(header)).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("section 2 "));
}

TEST(Sections, DamageIsDataLossEvenInCriticalOnes) {
  ObjectHeader header = Header();
  header.sections = {{2, true, {std::byte{1}, std::byte{2}}}, {3, false, {}}};
  auto object = ObjectOfZeros(header);
  const size_t at = FixedFieldsOf(header).sections_offset();
  // The content changes; only the prefix's CRC is repaired.
  auto content = object;
  content[at + 12] = std::byte{7};
  const uint64_t prefix_bytes = FixedFieldsOf(header).prefix_bytes;
  const uint32_t crc =
      PrefixCrc(absl::MakeSpan(content).subspan(0, prefix_bytes));
  std::memcpy(content.data() + kCrcOffset, &crc, sizeof(crc));
  EXPECT_EQ(Parsed(content).status().code(), absl::StatusCode::kDataLoss);
  // An id twice, id 0, unknown flags, a length past the end.
  for (const auto& [offset, value] :
       {std::pair<size_t, int>{14, 2}, {0, 0}, {2, 3}, {3, 1}, {4, 200}}) {
    EXPECT_EQ(ParseWith(object, at + offset, std::byte(value)).code(),
              absl::StatusCode::kDataLoss)
        << offset;
  }
}

TEST(CheckHeader, RefusesHeadersThatVersion3CannotHold) {
  const auto code = [](const ObjectHeader& header) {
    return CheckHeader(header).code();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  ObjectHeader header = Header();
  header.depth = 1;  // standalone
  EXPECT_EQ(code(header), kInvalid);
  header.identity.condition = KeyOf(header);
  EXPECT_EQ(code(header), absl::StatusCode::kOk);
  header.depth = 0;
  EXPECT_EQ(code(header), kInvalid);
  header.depth = std::nullopt;  // as in version 2
  EXPECT_EQ(code(header), absl::StatusCode::kOk);
  std::vector<std::byte> room(ObjectBytesMax(header));
  EXPECT_EQ(ObjectEncoder::Create(header, nullptr, absl::MakeSpan(room))
                .status()
                .code(),
            kInvalid);

  header = WithLongerV();
  header.shape.v_head_dim = header.shape.head_dim;
  EXPECT_EQ(code(header), kInvalid);
  header.shape.v_head_dim = 257;
  EXPECT_EQ(code(header), absl::StatusCode::kOk);
  header.levels = LevelSet::Of(Level::kBase);
  EXPECT_EQ(code(header), kInvalid);

  header = WithLayerRopes();
  header.layer_ropes.pop_back();
  EXPECT_EQ(code(header), kInvalid);
  header.layer_ropes.assign(5, header.rope);
  EXPECT_EQ(code(header), kInvalid);
  header.layer_ropes[0].theta = 5.0;
  EXPECT_EQ(code(header), kInvalid);

  header = Header();
  header.sections = {{2, false, {}}, {2, false, {}}};
  EXPECT_EQ(code(header), kInvalid);
  header.sections = {{2, false, std::vector<std::byte>(kSectionsBytesMax)}};
  EXPECT_EQ(code(header), kInvalid);
}

}  // namespace
}  // namespace kdn::codec
