#include "storage/record.h"

#include <gtest/gtest.h>

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
  return header;
}

TEST(RecordTest, SurvivesItsPage) {
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
