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
                  ->ForEach([&](const RecordHeader& record,
                                const RecordHeader& amended) {
                    EXPECT_EQ(record, amended);
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
  const auto ignore = [](const RecordHeader&, const RecordHeader&) {};
  EXPECT_TRUE(absl::IsDataLoss(index->ForEach(ignore)));
  EXPECT_TRUE(
      absl::IsDataLoss(index->Get(Record(2).shard, Record(2).key).status()));
  EXPECT_TRUE(index->Get(Record(1).shard, Record(1).key).ok());
}

// The record with its amendment, by Amended and by ForEach.
RecordHeader AmendedIn(DiskIndex& index, const RecordHeader& record) {
  const absl::StatusOr<RecordHeader> amended = index.Amended(record);
  EXPECT_TRUE(amended.ok()) << amended.status();
  int visits = 0;
  EXPECT_TRUE(
      index
          .ForEach([&](const RecordHeader& own, const RecordHeader& visited) {
            if (own.key != record.key) return;
            ++visits;
            EXPECT_EQ(own, record);
            EXPECT_EQ(visited, *amended);
          })
          .ok());
  EXPECT_EQ(visits, 1);
  return *amended;
}

TEST(DiskIndexTest, AnAmendmentCountsForItsRecordAndForCopiesOfIt) {
  TempDirectory directory;
  auto index = Open(directory);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(index->Put(Record(i)).ok());
  const RecordHeader record = Record(7);
  RecordHeader amended = record;
  amended.expiry_unix_us = 1234;
  amended.durability = Durability::kDurable;
  ASSERT_TRUE(index->Amend(amended).ok());
  index = nullptr;
  index = Open(directory);
  EXPECT_EQ(**index->Get(record.shard, record.key), record);
  EXPECT_EQ(AmendedIn(*index, record), amended);
  EXPECT_EQ(AmendedIn(*index, Record(8)), Record(8));
  RecordHeader copy = record;
  copy.segment = 50;
  ASSERT_TRUE(index->Move(copy).ok());
  amended.segment = copy.segment;
  EXPECT_EQ(AmendedIn(*index, copy), amended);
  ASSERT_TRUE(index->Put(record).ok());
  EXPECT_EQ(AmendedIn(*index, record), record) << "written again";
}

// A build without amendments leaves the amendment of an object that it removes.
TEST(DiskIndexTest, AnAmendmentOfAnEarlierRecordDoesNotCount) {
  TempDirectory directory;
  auto index = Open(directory);
  RecordHeader amended = Record(1);
  amended.expiry_unix_us = 1234;
  ASSERT_TRUE(index->Amend(amended).ok());
  RecordHeader later = Record(1);
  later.sequence = 99;
  ASSERT_TRUE(index->Move(later).ok());  // does not drop the amendment
  EXPECT_EQ(AmendedIn(*index, later), later);
  ASSERT_TRUE(index->Put(Record(1)).ok());
  ASSERT_TRUE(index->Amend(amended).ok());
  ASSERT_TRUE(index->Erase(amended.shard, amended.key).ok());
  ASSERT_TRUE(index->Move(Record(1)).ok());
  EXPECT_EQ(AmendedIn(*index, Record(1)), Record(1)) << "erased";
}

TEST(DiskIndexTest, ADamagedAmendmentIsNoDamageOfItsRecord) {
  TempDirectory directory;
  {
    auto index = Open(directory);
    ASSERT_TRUE(index->Put(Record(1)).ok());
    ASSERT_TRUE(index->Amend(Record(1)).ok());
  }
  {
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, directory.path() + "/index", &db).ok());
    const std::unique_ptr<rocksdb::DB> owner(db);
    const std::unique_ptr<rocksdb::Iterator> last(db->NewIterator({}));
    last->SeekToLast();
    ASSERT_TRUE(last->key().ends_with("amended"));
    ASSERT_TRUE(db->Put({}, last->key(), "nonsense").ok());
  }
  auto index = Open(directory);
  EXPECT_EQ(**index->Get(Record(1).shard, Record(1).key), Record(1));
  EXPECT_TRUE(absl::IsUnavailable(index->Amended(Record(1)).status()));
  EXPECT_TRUE(absl::IsDataLoss(index->ForEach([](const RecordHeader&,
                                                 const RecordHeader&) {
  }))) << "the next start rebuilds the index";
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
