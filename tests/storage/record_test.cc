#include "storage/record.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

namespace kdn::storage {
namespace {

RecordHeader Some() {
  RecordHeader header;
  header.store_id = 7;
  header.segment = 3;
  header.offset = 4096;
  header.sequence = 99;
  header.shard = ShardId(12);
  std::array<uint8_t, 32> key{};
  key[31] = 5;
  header.key = ChunkKey(key);
  header.ns = "tenant";
  header.version = ObjectVersion(123);
  header.levels = 3;
  header.payload_bytes = 5000;
  header.payload_crc32c = 0xdeadbeef;
  header.durability = Durability::kDurable;
  header.depth = 40;
  header.expiry_unix_us = 1234567;
  return header;
}

std::vector<std::byte> ReadGolden(const std::string& name) {
  const std::string path =
      std::string(KDN_SOURCE_DIR) + "/tests/storage/golden/" + name;
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// The headers in the golden files. An earlier build wrote the files, and every
// later build must read them.
RecordHeader GoldenTombstone() {
  RecordHeader header;
  header.kind = RecordHeader::Kind::kTombstone;
  header.store_id = 0x0123456789abcdef;
  header.segment = 3;
  header.offset = 8192;
  header.sequence = (uint64_t{5} << 40) + 99;
  header.shard = ShardId(12);
  std::array<uint8_t, 32> key;
  std::iota(key.begin(), key.end(), uint8_t{0});
  header.key = ChunkKey(key);
  return header;
}

RecordHeader GoldenObjectV1() {
  RecordHeader header = GoldenTombstone();
  header.kind = RecordHeader::Kind::kObject;
  header.ns = "tenant";
  header.version = ObjectVersion(123);
  header.levels = 3;
  header.payload_bytes = 5000;
  header.payload_crc32c = 0xdeadbeef;
  return header;
}

RecordHeader GoldenObjectV2() {
  RecordHeader header = GoldenObjectV1();
  header.durability = Durability::kDurable;
  header.depth = 7;
  header.expiry_unix_us = 1790000000123456;
  return header;
}

void ExpectDecodes(const std::string& name, const RecordHeader& expected) {
  const absl::StatusOr<RecordHeader> header =
      DecodeRecordHeader(ReadGolden(name));
  ASSERT_TRUE(header.ok()) << name << ": " << header.status();
  EXPECT_EQ(*header, expected) << name;
}

TEST(RecordTest, DecodesTheGoldenFileOfEveryVersion) {
  ExpectDecodes("record-v1-object.bin", GoldenObjectV1());
  ExpectDecodes("record-v1-tombstone.bin", GoldenTombstone());
  ExpectDecodes("record-v2-object.bin", GoldenObjectV2());
  ExpectDecodes("record-v2-tombstone.bin", GoldenTombstone());
}

// The golden object has a placement key, which this build neither reads nor
// writes.
TEST(RecordTest, WritesTheGoldenFilesOfVersion2) {
  const auto without_placement = [](std::vector<std::byte> page) {
    std::fill_n(page.begin() + 8, 4, std::byte{0});  // the CRC of the page
    std::fill_n(page.begin() + 240, 32, std::byte{0});
    return page;
  };
  std::vector<std::byte> page(kRecordPage);
  EncodeRecordHeader(GoldenObjectV2(), absl::MakeSpan(page));
  EXPECT_EQ(without_placement(page),
            without_placement(ReadGolden("record-v2-object.bin")));
  EncodeRecordHeader(GoldenTombstone(), absl::MakeSpan(page));
  EXPECT_EQ(page, ReadGolden("record-v2-tombstone.bin"));
}

TEST(RecordTest, TheInfoOfAnObjectSurvivesItsHeader) {
  const absl::Duration offset = absl::Hours(1000);
  ObjectInfo info = InfoOf(Some(), offset);
  EXPECT_EQ(info.expires, absl::FromUnixMicros(1234567) - offset);
  RecordHeader again = HeaderOf(info, offset);
  EXPECT_EQ(again.expiry_unix_us, 1234567);
  EXPECT_EQ(again.depth, 40u);
  EXPECT_EQ(again.durability, Durability::kDurable);
  info.expires = absl::InfinitePast();
  again = HeaderOf(info, offset);
  EXPECT_EQ(again.expiry_unix_us, 0);
  EXPECT_EQ(InfoOf(again, offset).expires, absl::InfinitePast());
}

TEST(RecordTest, DecodingReversesEncoding) {
  std::vector<std::byte> page(kRecordPage);
  EncodeRecordHeader(Some(), absl::MakeSpan(page));
  const absl::StatusOr<RecordHeader> back = DecodeRecordHeader(page);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, Some());
  EXPECT_EQ(RecordBytes(5000), 4096u + 8192u);
  EXPECT_EQ(RecordBytes(0), 4096u);
}

TEST(RecordTest, AnyFlippedBitIsNoRecord) {
  std::vector<std::byte> page(kRecordPage);
  EncodeRecordHeader(Some(), absl::MakeSpan(page));
  for (size_t byte = 0; byte < page.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      page[byte] ^= static_cast<std::byte>(1 << bit);
      EXPECT_TRUE(absl::IsDataLoss(DecodeRecordHeader(page).status()))
          << byte << "." << bit;
      page[byte] ^= static_cast<std::byte>(1 << bit);
    }
  }
  page.pop_back();
  EXPECT_FALSE(DecodeRecordHeader(page).ok());
}

}  // namespace
}  // namespace kdn::storage
