#include "codec/format/object.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/format/stream_layout.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

using testing::HasSubstr;

absl::StatusOr<ObjectIndex> ParseAll(const std::vector<std::byte>& object) {
  return ObjectIndex::Parse(object, object.size());
}

TEST(ObjectIndex, ReturnsEveryFieldOfTheHeader) {
  ChunkOptions options;
  options.pairing = RopePairing::kGptJ;
  ObjectHeader header = HeaderOf(options);
  header.identity.variant = "errata-3";
  header.identity.condition = KeyOf(header);
  header.depth = 41;
  header.sections = {{9, false, {std::byte{1}, std::byte{2}}},
                     {65535, false, {}}};
  header.positions = {4, 4, 1000000, 0, 2147483647};
  header.rope = {.theta = 5e5,
                 .rotary_dim = 6,
                 .pairing = RopePairing::kGptJ,
                 .scaling = RopeScaling::kYarn,
                 .factor = 4.0,
                 .low_freq_factor = 1.5,
                 .high_freq_factor = 3.5,
                 .original_max_position = 8192,
                 .beta_fast = 31.0,
                 .beta_slow = 2.0,
                 .attention_factor = 1.25};
  KvBuffer kv(options.shape, Layout::kTokenMajor, std::byte{0});
  const auto index = ParseAll(Encode(header, kv.view()));
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->header().identity, header.identity);
  EXPECT_EQ(index->header().shape, header.shape);
  EXPECT_EQ(index->header().rope, header.rope);
  EXPECT_EQ(index->header().positions, header.positions);
  EXPECT_EQ(index->header().levels, header.levels);
  EXPECT_EQ(index->header().calibration, CalibrationId());
  EXPECT_EQ(index->header().depth, header.depth);
  EXPECT_EQ(index->header().layer_ropes, header.layer_ropes);
  EXPECT_EQ(index->header().sections, header.sections);
  EXPECT_EQ(index->key(), KeyOf(header));
}

TEST(ObjectIndex, ParsesFromThePrefixAlone) {
  const auto object = RandomObject({}, 1);
  const auto whole = ParseAll(object);
  ASSERT_TRUE(whole.ok()) << whole.status();
  const auto prefix_bytes = ObjectIndex::PrefixBytes(
      absl::MakeSpan(object).subspan(0, ObjectIndex::kFixedPrefixBytes));
  ASSERT_TRUE(prefix_bytes.ok()) << prefix_bytes.status();
  EXPECT_EQ(*prefix_bytes, whole->prefix_bytes());
  const auto alone = ObjectIndex::Parse(
      absl::MakeSpan(object).subspan(0, *prefix_bytes), object.size());
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->version(), whole->version());
  EXPECT_EQ(alone->object_bytes(), object.size());
}

TEST(ObjectIndex, RefusesAnotherObjectSize) {
  const auto object = RandomObject({}, 1);
  for (uint64_t bytes :
       {object.size() - 1, object.size() + 1, size_t{0}, ~size_t{0}}) {
    EXPECT_EQ(ObjectIndex::Parse(object, bytes).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

// The streams' ranges, with adjacent ones merged as LayerRanges does.
std::vector<ByteRange> RangesOf(const ObjectIndex& index,
                                const std::vector<StreamId>& ids) {
  std::vector<ByteRange> ranges;
  for (const StreamId& id : ids) {
    const StreamEntry& entry = index.Entry(id);
    if (!ranges.empty() &&
        ranges.back().offset + ranges.back().bytes == entry.offset) {
      ranges.back().bytes += entry.bytes;
    } else {
      ranges.push_back({entry.offset, entry.bytes});
    }
  }
  return ranges;
}

TEST(ObjectIndex, AWholeLayerOfALevelIsOneRange) {
  const auto object = RandomObject({}, 1);
  const auto index = ParseAll(object);
  ASSERT_TRUE(index.ok());
  uint64_t end = index->prefix_bytes();
  for (const StreamGroup& group :
       GroupsOf(index->header().shape, index->header().levels)) {
    const auto own =
        RangesOf(*index, StreamsOf(GridOf(index->header()), group));
    ASSERT_EQ(own.size(), 1u);
    EXPECT_EQ(own[0].offset, AlignUp(end));
    end = own[0].offset + own[0].bytes;
    // This group comes last, after the groups of the levels that it refines.
    const auto ranges = index->LayerRanges(group.level, group.layer, 0, 3);
    ASSERT_FALSE(ranges.empty());
    EXPECT_LE(ranges.size(), LadderTo(group.level).size());
    EXPECT_EQ(ranges.back().offset + ranges.back().bytes, end);
    std::vector<StreamId> ids;
    for (Level level : LadderTo(group.level)) {
      for (const StreamId& id :
           StreamsOf(GridOf(index->header()), {group.layer, level})) {
        ids.push_back(id);
      }
    }
    EXPECT_EQ(ranges, RangesOf(*index, ids));
  }
  EXPECT_EQ(end, object.size());
}

TEST(ObjectIndex, ASliceOfHeadsIsOneRangeOfKAndOneOfV) {
  const auto index = ParseAll(RandomObject({}, 1));
  ASSERT_TRUE(index.ok());
  for (Level level : {Level::kLossless, Level::kInt8}) {
    const auto ranges = index->LayerRanges(level, 1, 1, 3);
    ASSERT_EQ(ranges.size(), 2u);
    const StreamEntry& k1 = index->Entry({level, 1, KvPart::kK, 1});
    const StreamEntry& k2 = index->Entry({level, 1, KvPart::kK, 2});
    const StreamEntry& v1 = index->Entry({level, 1, KvPart::kV, 1});
    EXPECT_EQ(ranges[0], (ByteRange{k1.offset, k1.bytes + k2.bytes}));
    EXPECT_EQ(ranges[1].offset, v1.offset);
  }
  for (Level level : LevelsOf(kApartLevels)) {
    EXPECT_TRUE(index->LayerRanges(level, 0, 2, 2).empty());
  }
}

TEST(ObjectIndex, HeadsThatShareAStreamComeTogether) {
  ChunkOptions options;
  options.shape = {.layers = 2,
                   .kv_heads = 6,
                   .tokens = 5,
                   .head_dim = 64,
                   .dtype = Dtype::kBf16};
  const auto index = ParseAll(RandomObject(options, 1));
  ASSERT_TRUE(index.ok());
  ASSERT_EQ(StreamGrid(options.shape).HeadsOf(KvPart::kK, Level::kBase), 2);
  const auto ranges = index->LayerRanges(Level::kBase2, 1, 1, 3);
  ASSERT_EQ(ranges.size(), 6u);
  for (size_t step = 0; step < 3; ++step) {
    const Level level = LadderTo(Level::kBase2)[step];
    for (size_t part = 0; part < 2; ++part) {
      const auto kv = part == 0 ? KvPart::kK : KvPart::kV;
      const StreamEntry& first = index->Entry({level, 1, kv, 0});
      const StreamEntry& second = index->Entry({level, 1, kv, 1});
      EXPECT_EQ(ranges[2 * step + part],
                (ByteRange{first.offset, first.bytes + second.bytes}));
    }
  }
  EXPECT_EQ(index->LayerRanges(Level::kBase, 0, 2, 3),
            index->LayerRanges(Level::kBase, 0, 2, 4));
}

TEST(ObjectIndexDeathTest, AskingForAMissingStreamIsABug) {
  ChunkOptions options;
  options.levels = LevelSet::Of(Level::kLossless);
  const auto index = ParseAll(RandomObject(options, 1));
  ASSERT_TRUE(index.ok());
  EXPECT_DEATH(index->Entry({Level::kInt8, 0, KvPart::kK, 0}), "level");
  EXPECT_DEATH(index->Entry({Level::kLossless, 2, KvPart::kK, 0}), "layer");
  EXPECT_DEATH(index->Entry({Level::kLossless, 0, KvPart::kK, -1}), "head");
}

TEST(ObjectIndex, TheKeyFollowsTheTokensThatTheHeaderStates) {
  auto object = RandomObject({}, 1);
  const auto honest = ParseAll(object);
  ASSERT_TRUE(honest.ok());
  // Token ids follow the digests, the RoPE descriptor, "tenant" and "raw".
  const size_t token_0 = 64 + 4 * 32 + 68 + 6 + 3;
  ASSERT_EQ(object[token_0], std::byte{3});
  object[token_0] = std::byte{4};
  EXPECT_EQ(ParseAll(object).status().code(), absl::StatusCode::kDataLoss);
  RepairPrefixCrc(absl::MakeSpan(object));
  const auto forged = ParseAll(object);
  ASSERT_TRUE(forged.ok()) << forged.status();
  EXPECT_NE(forged->key(), honest->key());
  EXPECT_NE(forged->version(), honest->version());
}

TEST(VerifyStream, NamesTheStreamThatIsDamaged) {
  auto object = RandomObject({}, 1);
  const auto index = ParseAll(object);
  ASSERT_TRUE(index.ok());
  const StreamId id{Level::kInt8, 1, KvPart::kV, 2};
  const StreamEntry& entry = index->Entry(id);
  const auto bytes = absl::MakeSpan(object).subspan(entry.offset, entry.bytes);
  EXPECT_TRUE(VerifyStream(*index, id, bytes).ok());
  EXPECT_EQ(VerifyStream(*index, id, bytes.subspan(1)).code(),
            absl::StatusCode::kDataLoss);
  bytes[7] ^= std::byte{0x10};
  for (const absl::Status& status :
       {VerifyStream(*index, id, bytes), VerifyObject(*index, object)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("level int8 layer 1 V head 2"));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(ShortHex(index->key())));
  }
}

TEST(VerifyStream, NamesTheHeadGroupOfASharedStream) {
  auto object = RandomObject({}, 1);
  const auto index = ParseAll(object);
  ASSERT_TRUE(index.ok());
  const StreamEntry& entry = index->Entry({Level::kBase1, 0, KvPart::kK, 0});
  object[entry.offset + entry.bytes - 1] ^= std::byte{1};
  const absl::Status status = VerifyObject(*index, object);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("level base+1 layer 0 K head group 0"));
}

TEST(VerifyObject, RefusesAnotherVersionOfTheSameChunk) {
  const auto one = RandomObject({}, 1);
  const auto two = RandomObject({}, 2);
  const auto index = ParseAll(one);
  ASSERT_TRUE(index.ok());
  EXPECT_TRUE(VerifyObject(*index, one).ok());
  EXPECT_EQ(VerifyObject(*index, two).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(VerifyObject(*index, absl::MakeSpan(one).subspan(1)).code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kdn::codec
