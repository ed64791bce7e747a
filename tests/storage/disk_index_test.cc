#include "storage/disk_index.h"

#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "tests/storage/disk_fixture.h"

namespace kdn::storage {
namespace {

RecordHeader Record(int i) {
  const ObjectInfo info = MakeObject(i).info;
  RecordHeader record;
  record.store_id = 9;
  record.segment = static_cast<uint32_t>(i);
  record.sequence = static_cast<uint64_t>(i) + 1;
  record.shard = info.shard;
  record.key = info.key;
  record.ns = info.ns;
  record.version = info.version;
  record.payload_bytes = info.bytes;
  return record;
}

std::unique_ptr<DiskIndex> Open(const TempDirectory& directory) {
  auto index = DiskIndex::Open(directory.path() + "/index");
  EXPECT_TRUE(index.ok()) << index.status();
  return index.ok() ? *std::move(index) : nullptr;
}

TEST(DiskIndexTest, IsWholeOnlyAfterMarkWhole) {
  TempDirectory directory;
  for (const bool marked : {false, false, true}) {
    auto index = Open(directory);
    ASSERT_NE(index, nullptr);
    EXPECT_FALSE(*index->IsWhole());
    ASSERT_TRUE(index->Put(Record(1)).ok());
    if (marked) {
      ASSERT_TRUE(index->MarkWhole().ok());
    }
  }
  EXPECT_TRUE(*Open(directory)->IsWhole());
}

TEST(DiskIndexTest, GivesBackWhatWasPutLastAndForgetsWhatWasErased) {
  TempDirectory directory;
  auto index = Open(directory);
  RecordHeader newer = Record(1);
  newer.offset = 4096;
  ASSERT_TRUE(index->Put(Record(1)).ok());
  ASSERT_TRUE(index->Put(newer).ok());
  ASSERT_TRUE(index->Put(Record(2)).ok());
  ASSERT_TRUE(index->Erase(Record(2).shard, Record(2).key).ok());
  EXPECT_EQ(**index->Get(newer.shard, newer.key), newer);
  EXPECT_FALSE(index->Get(Record(2).shard, Record(2).key)->has_value());
  const ShardId another(newer.shard.value() + 1);
  EXPECT_FALSE(index->Get(another, newer.key)->has_value());
}

TEST(DiskIndexTest, WalksInShardThenKeyOrderAndOverObjectsOnly) {
  TempDirectory directory;
  auto index = Open(directory);
  ASSERT_TRUE(index->MarkWhole().ok());
  for (int i = 0; i < 300; ++i) {
    RecordHeader record = Record(i);
    record.shard = ShardId(static_cast<uint32_t>(i * 7 % 600));  // > one byte
    ASSERT_TRUE(index->Put(record).ok());
  }
  std::vector<std::pair<ShardId, ChunkKey>> seen;
  ASSERT_TRUE(index
                  ->ForEach([&](const RecordHeader& record) {
                    seen.emplace_back(record.shard, record.key);
                  })
                  .ok());
  EXPECT_EQ(seen.size(), 300u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST(DiskIndexTest, AnEntryUnderTheKeyOfAnotherObjectIsDamage) {
  TempDirectory directory;
  ASSERT_TRUE(Open(directory)->Put(Record(1)).ok());
  ASSERT_TRUE(Open(directory)->Put(Record(2)).ok());
  {
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, directory.path() + "/index", &db).ok());
    const std::unique_ptr<rocksdb::DB> owner(db);
    const std::unique_ptr<rocksdb::Iterator> first(db->NewIterator({}));
    const std::unique_ptr<rocksdb::Iterator> last(db->NewIterator({}));
    first->SeekToFirst();
    last->SeekToLast();
    ASSERT_TRUE(db->Put({}, last->key(), first->value()).ok());
  }
  auto index = Open(directory);
  const auto ignore = [](const RecordHeader&) {};
  EXPECT_TRUE(absl::IsDataLoss(index->ForEach(ignore)));
  EXPECT_TRUE(
      absl::IsDataLoss(index->Get(Record(2).shard, Record(2).key).status()));
  EXPECT_TRUE(index->Get(Record(1).shard, Record(1).key).ok());
}

TEST(DiskIndexTest, ALogDamagedBeforeItsEndIsDamageNotAShorterIndex) {
  TempDirectory directory;
  {
    auto index = Open(directory);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(index->Put(Record(i)).ok());
  }
  int logs = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(directory.path() + "/index")) {
    if (file.path().extension() != ".log" || file.file_size() == 0) continue;
    ++logs;
    FlipByte(file.path(), static_cast<std::streamoff>(file.file_size() / 2));
  }
  ASSERT_EQ(logs, 1);
  EXPECT_TRUE(
      absl::IsDataLoss(DiskIndex::Open(directory.path() + "/index").status()));
}

}  // namespace
}  // namespace kdn::storage
