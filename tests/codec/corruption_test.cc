// Objects come from disks and peers. The answer to damaged bytes is DATA_LOSS,
// never a crash, a read outside the object or a large allocation.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "codec/format/byte_io.h"
#include "codec/format/fixed_fields.h"
#include "codec/format/object.h"
#include "codec/format/prefix_format.h"
#include "codec/format/stream_layout.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

ChunkOptions Tiny() {
  ChunkOptions options;
  options.shape = {.layers = 2,
                   .kv_heads = 1,
                   .tokens = 3,
                   .head_dim = 4,
                   .dtype = Dtype::kBf16};
  options.rotary_dim = 4;
  return options;
}

absl::Status ParseAndVerify(const std::vector<std::byte>& object) {
  const auto index = ObjectIndex::Parse(object, object.size());
  if (!index.ok()) return index.status();
  return VerifyObject(*index, object);
}

TEST(Corruption, EveryFlippedBitIsFound) {
  std::vector<std::byte> object = RandomObject(Tiny(), 1);
  ASSERT_TRUE(ParseAndVerify(object).ok());
  for (size_t at = 0; at < object.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      object[at] ^= std::byte{1} << bit;
      EXPECT_EQ(ParseAndVerify(object).code(), absl::StatusCode::kDataLoss)
          << "byte " << at << " bit " << bit;
      object[at] ^= std::byte{1} << bit;
    }
  }
}

// Flips every `stride`th bit of one layer of a level, one at a time.
void ExpectFlipsToBeFound(std::vector<std::byte> object, Level level, int layer,
                          uint64_t stride) {
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok());
  const ObjectHeader& header = index->header();
  const auto decoder = ObjectDecoder::Create(&*index, TestCalibrationOf(header),
                                             header.positions);
  ASSERT_TRUE(decoder.ok());
  KvBuffer decoded(header.shape, Layout::kTokenMajor);
  const int heads = header.shape.kv_heads;
  for (const ByteRange& range : index->LayerRanges(level, layer, 0, heads)) {
    for (uint64_t bit = 0; bit < 8 * range.bytes; bit += stride) {
      std::byte& at = object[range.offset + bit / 8];
      at ^= std::byte{1} << (bit % 8);
      EXPECT_EQ(decoder
                    ->DecodeLayerOf(object, level, layer, 0, heads,
                                    decoded.view().Layer(layer))
                    .code(),
                absl::StatusCode::kDataLoss)
          << "bit " << bit << " of the range at " << range.offset;
      at ^= std::byte{1} << (bit % 8);
    }
  }
}

TEST(Corruption, EveryFlippedBitOfAStreamIsFoundWhileDecoding) {
  const std::vector<std::byte> object = RandomObject(Tiny(), 1);
  for (Level level : LevelsOf(kApartLevels)) {
    for (int layer : {0, 1}) ExpectFlipsToBeFound(object, level, layer, 1);
  }
}

TEST(Corruption, FlippedBitsOfCodedSymbolsAreFoundWhileDecoding) {
  ChunkOptions options;
  options.shape.tokens = 40;
  const std::vector<std::byte> object = RandomObject(options, 1);
  for (Level level : LevelsOf(kApartLevels))
    ExpectFlipsToBeFound(object, level, 1, 19);
}

TEST(Corruption, EveryTruncationIsFound) {
  const std::vector<std::byte> object = RandomObject(Tiny(), 1);
  for (size_t bytes = 0; bytes < object.size(); ++bytes) {
    // A copy of exactly that size, so that a sanitizer sees any over-read.
    const std::vector<std::byte> part(object.begin(), object.begin() + bytes);
    EXPECT_EQ(ParseAndVerify(part).code(), absl::StatusCode::kDataLoss);
    // The same when the object's size is right and the prefix is short.
    const auto index = ObjectIndex::Parse(part, object.size());
    if (index.ok()) {
      EXPECT_GE(bytes, index->prefix_bytes());
      EXPECT_EQ(VerifyObject(*index, part).code(), absl::StatusCode::kDataLoss);
    } else {
      EXPECT_EQ(index.status().code(), absl::StatusCode::kDataLoss);
    }
  }
}

TEST(Corruption, BytesAfterTheObjectAreFound) {
  std::vector<std::byte> object = RandomObject(Tiny(), 1);
  object.push_back(std::byte{0});
  EXPECT_EQ(ParseAndVerify(object).code(), absl::StatusCode::kDataLoss);
}

TEST(Corruption, RandomBytesAreNoObject) {
  std::mt19937 rng(31);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::byte> bytes(rng() % 1024);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng());
    if (round % 2 == 0 && bytes.size() >= 8) {
      std::memcpy(bytes.data(), round % 4 == 0 ? "KDNOBJ\2\0" : "KDNOBJ\3\0",
                  8);
    }
    EXPECT_EQ(ParseAndVerify(bytes).code(), absl::StatusCode::kDataLoss);
  }
}

// One field of the prefix is overwritten, and its checksum repaired.
struct Forgery {
  size_t offset;
  size_t bytes;
  uint64_t value;
};

class ForgeryTest : public testing::TestWithParam<Forgery> {};

TEST_P(ForgeryTest, IsDataLossThoughTheChecksumIsRight) {
  const Forgery& forgery = GetParam();
  std::vector<std::byte> object = RandomObject(Tiny(), 1);
  const auto original = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(original.ok());
  std::memcpy(object.data() + forgery.offset, &forgery.value, forgery.bytes);
  const uint32_t crc =
      PrefixCrc(absl::MakeSpan(object).subspan(0, original->prefix_bytes()));
  ByteWriter(absl::MakeSpan(object).subspan(kCrcOffset)).Write<uint32_t>(crc);
  EXPECT_EQ(ParseAndVerify(object).code(), absl::StatusCode::kDataLoss);
  // A huge object size does not change the answer.
  EXPECT_EQ(ObjectIndex::Parse(object, ~uint64_t{0}).status().code(),
            absl::StatusCode::kDataLoss);
}

// Offsets as in docs/formats.md.
INSTANTIATE_TEST_SUITE_P(
    FixedFields, ForgeryTest,
    testing::Values(Forgery{6, 2, 2},            // version 2, fields of 3
                    Forgery{8, 4, 0},            // no prefix
                    Forgery{8, 4, 63},           // shorter than 64
                    Forgery{8, 4, 0xffffffff},   // longer than anything
                    Forgery{16, 4, 0},           // layers
                    Forgery{16, 4, 0x7fffffff},  //
                    Forgery{16, 4, 0xffffffff},  //
                    Forgery{16, 4, 1024},        // in bounds, but missing
                    Forgery{20, 4, 1024},        // heads
                    Forgery{20, 4, 0x80000000},  //
                    Forgery{24, 4, 0},           // tokens
                    Forgery{24, 4, 4096},        //
                    Forgery{24, 4, 4097},        //
                    Forgery{28, 4, 8},           // head_dim
                    Forgery{28, 4, 4097},        //
                    Forgery{32, 1, 2},           // dtype of another size
                    Forgery{32, 1, 200},         //
                    Forgery{33, 1, 0},           // levels
                    Forgery{33, 1, 1},           //
                    Forgery{33, 1, 0x0f},        //
                    Forgery{33, 1, 0x1b},        // base+2 without base+1
                    Forgery{33, 1, 0x3f},        //
                    Forgery{33, 1, 0xff},        //
                    Forgery{34, 1, 0},           // rope descriptors
                    Forgery{34, 1, 2},           // in bounds, but missing
                    Forgery{34, 1, 3},           // more than layers
                    Forgery{35, 1, 1},           // reserved
                    Forgery{36, 4, 0},           // head_dim of V
                    Forgery{36, 4, 8},           //
                    Forgery{36, 4, 4097},        //
                    Forgery{36, 4, 0xfffffffe},  //
                    Forgery{40, 4, 1},           // depth of a standalone chunk
                    Forgery{44, 2, 0},           // namespace length
                    Forgery{44, 2, 0xffff},      //
                    Forgery{46, 2, 0xffff},      // variant length
                    Forgery{48, 4, 12},          // bytes of sections
                    Forgery{48, 4, 0xffffffff},  //
                    Forgery{52, 8, 1},           // reserved
                    Forgery{60, 4, 1}));

TEST(Corruption, AnObjectOfAnotherVersionIsNotDamaged) {
  const std::vector<std::byte> object = RandomObject(Tiny(), 1);
  for (const uint16_t version : {0, 1, 5, 0xffff}) {
    std::vector<std::byte> other = object;
    std::memcpy(other.data() + 6, &version, sizeof(version));
    // The checksum of the header still is that of version 3.
    EXPECT_EQ(ParseAndVerify(other).code(), absl::StatusCode::kDataLoss);
    const auto original = ObjectIndex::Parse(object, object.size());
    ASSERT_TRUE(original.ok());
    const uint32_t crc =
        PrefixCrc(absl::MakeSpan(other).subspan(0, original->prefix_bytes()));
    ByteWriter(absl::MakeSpan(other).subspan(kCrcOffset)).Write<uint32_t>(crc);
    const absl::Status status = ParseAndVerify(other);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    EXPECT_THAT(status.message(), testing::HasSubstr("reads 2 to 4"));
  }
}

// The descriptor follows the four digests.
INSTANTIATE_TEST_SUITE_P(
    RopeDescriptor, ForgeryTest,
    testing::Values(Forgery{192, 1, 2},           // pairing
                    Forgery{193, 1, 9},           // scaling
                    Forgery{194, 2, 1},           // reserved
                    Forgery{196, 4, 6},           // rotary_dim past the head
                    Forgery{196, 4, 0xfffffffe},  //
                    Forgery{204, 8, 0}));         // theta

// The index of a Tiny object: the number of its entries, one per level, layer,
// and K or V; and its offset.
constexpr size_t kEntries = (kLevelCount - 1) * 2 * 2;
constexpr size_t kIndexBegin = 64 + 4 * 32 + 68 + 6 + 3 + 2 * 3 * 4;

TEST(Corruption, TamperedIndexEntriesAreFoundThoughTheChecksumIsRight) {
  const std::vector<std::byte> object = RandomObject(Tiny(), 1);
  const auto index = ObjectIndex::Parse(object, object.size());
  ASSERT_TRUE(index.ok());
  ASSERT_LE(kIndexBegin + kEntryBytes * kEntries, index->prefix_bytes());
  for (size_t entry = 0; entry < kEntries; ++entry) {
    for (size_t byte = 0; byte < 12; ++byte) {  // offset and length
      std::vector<std::byte> forged = object;
      forged[kIndexBegin + kEntryBytes * entry + byte] ^= std::byte{0x40};
      RepairPrefixCrc(absl::MakeSpan(forged));
      EXPECT_EQ(ParseAndVerify(forged).code(), absl::StatusCode::kDataLoss)
          << "entry " << entry << " byte " << byte;
    }
  }
}

TEST(Corruption, ImpossibleErrorsAreFoundThoughTheChecksumIsRight) {
  const std::vector<std::byte> object = RandomObject(Tiny(), 1);
  for (size_t at : {size_t{16}, size_t{20}}) {  // largest, root mean square
    for (float error : {-1.0f, std::numeric_limits<float>::infinity(),
                        std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<std::byte> forged = object;
      std::memcpy(forged.data() + kIndexBegin + kEntryBytes * 7 + at, &error,
                  sizeof(error));
      RepairPrefixCrc(absl::MakeSpan(forged));
      EXPECT_EQ(ParseAndVerify(forged).code(), absl::StatusCode::kDataLoss);
    }
  }
}

TEST(Corruption, ACalibrationThatNoLevelUsesIsFoundThoughTheChecksumIsRight) {
  constexpr size_t kCalibrationBegin = 64 + 3 * 32;
  for (bool transform_coded : {false, true}) {
    ChunkOptions options = Tiny();
    if (!transform_coded) options.levels = LevelSet::Of(Level::kInt8);
    std::vector<std::byte> object = RandomObject(options, 1);
    object[kCalibrationBegin + 5] = std::byte{1};
    RepairPrefixCrc(absl::MakeSpan(object));
    EXPECT_EQ(ParseAndVerify(object).ok(), transform_coded);
  }
}

}  // namespace
}  // namespace kdn::codec
