#include "storage/disk_index.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <cstdarg>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/log.h"

namespace kdn::storage {
namespace {

// Shorter than an object's key, so that no object has these keys.
constexpr char kWholeKey[] = "whole";
constexpr char kSyncKey[] = "sync";  // written to sync what was written before
constexpr size_t kIndexKeyBytes = 4 + 32;
// Follows an object's key in the key of its amendment. So an amendment is the
// next entry after its object, and builds without amendments pass over it.
constexpr absl::string_view kAmendmentSuffix = "amended";

std::string IndexKey(ShardId shard, const ChunkKey& key) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) {  // big-endian: sorts by shard
    text.push_back(static_cast<char>(shard.value() >> shift & 0xff));
  }
  text.append(key.bytes().begin(), key.bytes().end());
  return text;
}

std::string AmendmentKey(ShardId shard, const ChunkKey& key) {
  return absl::StrCat(IndexKey(shard, key), kAmendmentSuffix);
}

absl::Status ToStatus(const rocksdb::Status& status, const char* what) {
  if (status.ok()) return absl::OkStatus();
  const std::string message =
      absl::StrCat("index: ", what, ": ", status.ToString());
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(message);
  if (status.IsCorruption()) return absl::DataLossError(message);
  return absl::UnavailableError(message);
}

// The value is the record's header page without the zeros at its end. So the
// index has nothing that the segment does not have.
std::string ValueOf(const RecordHeader& record) {
  std::vector<std::byte> page(kRecordPage);
  EncodeRecordHeader(record, absl::MakeSpan(page));
  size_t bytes = page.size();
  while (bytes > 0 && page[bytes - 1] == std::byte{0}) --bytes;
  return std::string(reinterpret_cast<const char*>(page.data()), bytes);
}

// `key` is the key of the object. An entry whose header names another object is
// damaged. If it were used, one record would count twice.
absl::StatusOr<RecordHeader> RecordOf(const rocksdb::Slice& key,
                                      const rocksdb::Slice& value) {
  if (value.size() > kRecordPage) {
    return absl::DataLossError("index: an entry is longer than a page");
  }
  std::vector<std::byte> page(kRecordPage);
  std::copy_n(reinterpret_cast<const std::byte*>(value.data()), value.size(),
              page.begin());
  absl::StatusOr<RecordHeader> record = DecodeRecordHeader(page);
  if (record.ok() && key != IndexKey(record->shard, record->key)) {
    return absl::DataLossError(
        "index: the entry of one object names another object");
  }
  return record;
}

bool IsAmendmentKey(const rocksdb::Slice& key) {
  return key.size() == kIndexKeyBytes + kAmendmentSuffix.size() &&
         key.ends_with(
             rocksdb::Slice(kAmendmentSuffix.data(), kAmendmentSuffix.size()));
}

// Puts the amendment into *record, if the amendment is about this record.
void Apply(const RecordHeader& amendment, RecordHeader* record) {
  if (amendment.record_key() != record->record_key() ||
      amendment.sequence != record->sequence) {
    return;
  }
  record->durability = amendment.durability;
  record->expiry_unix_us = amendment.expiry_unix_us;
}

// RocksDB's own log is a file in its directory. When the disk is full, RocksDB
// aborts the process at the second line that it cannot write there.
class ErrorsToLog final : public rocksdb::Logger {
 public:
  ErrorsToLog() : Logger(rocksdb::InfoLogLevel::ERROR_LEVEL) {}
  void Logv(const char* format, va_list arguments) override {
    char line[512];
    std::vsnprintf(line, sizeof(line), format, arguments);
    LogError("storage.rocksdb", line);
  }
};

}  // namespace

DiskIndex::DiskIndex(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}
DiskIndex::~DiskIndex() = default;

absl::StatusOr<std::unique_ptr<DiskIndex>> DiskIndex::Open(
    const std::string& directory) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.info_log = std::make_shared<ErrorsToLog>();
  options.max_total_wal_size = 16u << 20;
  options.write_buffer_size = 8u << 20;
  // With preallocation, the logs would take 12 MB of a small disk.
  options.allow_fallocate = false;
  // A log with damage before its end is an error, and the index is rebuilt. The
  // default mode would cut the log there and silently forget objects.
  options.wal_recovery_mode =
      rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, directory, &db);
  if (!status.ok()) {
    // RocksDB has several codes for a missing or cut file.
    if (status.IsInvalidArgument() || status.IsPathNotFound() ||
        status.IsNotFound()) {
      return absl::DataLossError(absl::StrCat("index: ", status.ToString()));
    }
    return ToStatus(status, "opening");
  }
  return std::unique_ptr<DiskIndex>(
      new DiskIndex(std::unique_ptr<rocksdb::DB>(db)));
}

absl::Status DiskIndex::Destroy(const std::string& directory) {
  return ToStatus(rocksdb::DestroyDB(directory, rocksdb::Options()),
                  "destroying");
}

absl::StatusOr<bool> DiskIndex::IsWhole() {
  std::string value;
  const rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), kWholeKey, &value);
  if (status.IsNotFound()) return false;
  if (!status.ok()) return ToStatus(status, "reading");
  return true;
}

absl::Status DiskIndex::MarkWhole() { return PutSynced(kWholeKey); }

absl::Status DiskIndex::PutSynced(const char* key) {
  rocksdb::WriteOptions options;
  options.sync = true;
  return Change([&] { return db_->Put(options, key, ""); }, "syncing");
}

absl::Status DiskIndex::Change(absl::FunctionRef<rocksdb::Status()> change,
                               const char* what) {
  rocksdb::Status status = change();
  if (status.IsNoSpace() || status.severity() != rocksdb::Status::kNoError) {
    // A full disk puts RocksDB into read-only mode until Resume. By now an
    // eviction may have made room.
    db_->Resume().PermitUncheckedError();
    status = change();
  }
  return ToStatus(status, what);
}

absl::Status DiskIndex::Put(const RecordHeader& record) {
  const std::string key = IndexKey(record.shard, record.key);
  const std::string value = ValueOf(record);
  KDN_CHECK(key.size() == kIndexKeyBytes, "shard and chunk key, no more");
  return Change(
      [&] {
        rocksdb::WriteBatch batch;
        batch.Put(key, value);
        batch.Delete(AmendmentKey(record.shard, record.key));
        return db_->Write(rocksdb::WriteOptions(), &batch);
      },
      "writing");
}

absl::Status DiskIndex::Erase(ShardId shard, const ChunkKey& key) {
  return Change(
      [&] {
        rocksdb::WriteBatch batch;
        batch.Delete(IndexKey(shard, key));
        batch.Delete(AmendmentKey(shard, key));
        return db_->Write(rocksdb::WriteOptions(), &batch);
      },
      "erasing");
}

absl::Status DiskIndex::PutEntry(const std::string& key,
                                 const RecordHeader& record) {
  const std::string value = ValueOf(record);
  return Change([&] { return db_->Put(rocksdb::WriteOptions(), key, value); },
                "writing");
}

absl::Status DiskIndex::Move(const RecordHeader& copy) {
  return PutEntry(IndexKey(copy.shard, copy.key), copy);
}

absl::Status DiskIndex::Amend(const RecordHeader& amended) {
  return PutEntry(AmendmentKey(amended.shard, amended.key), amended);
}

absl::StatusOr<std::optional<RecordHeader>> DiskIndex::Get(
    ShardId shard, const ChunkKey& key) {
  const std::string at = IndexKey(shard, key);
  std::string value;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), at, &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return ToStatus(status, "reading");
  absl::StatusOr<RecordHeader> record = RecordOf(at, value);
  if (!record.ok()) return record.status();
  return *std::move(record);
}

absl::StatusOr<RecordHeader> DiskIndex::Amended(const RecordHeader& record) {
  std::string value;
  const rocksdb::Status status = db_->Get(
      rocksdb::ReadOptions(), AmendmentKey(record.shard, record.key), &value);
  if (status.IsNotFound()) return record;
  const absl::StatusOr<RecordHeader> amendment =
      status.ok() ? RecordOf(IndexKey(record.shard, record.key), value)
                  : absl::StatusOr<RecordHeader>(ToStatus(status, "reading"));
  if (!amendment.ok()) {
    // Not DATA_LOSS: the record itself is whole.
    return absl::UnavailableError(amendment.status().message());
  }
  RecordHeader amended = record;
  Apply(*amendment, &amended);
  return amended;
}

absl::Status DiskIndex::ForEach(
    absl::FunctionRef<void(const RecordHeader& record,
                           const RecordHeader& amended)>
        visit) {
  const std::unique_ptr<rocksdb::Iterator> at(
      db_->NewIterator(rocksdb::ReadOptions()));
  // The record that may have an amendment in the next entry.
  std::optional<RecordHeader> last;
  const auto visit_last = [&](const RecordHeader* amendment) {
    if (!last) return;
    RecordHeader amended = *last;
    if (amendment != nullptr) Apply(*amendment, &amended);
    visit(*std::exchange(last, std::nullopt), amended);
  };
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
    const bool is_amendment = IsAmendmentKey(at->key());
    if (!is_amendment && at->key().size() != kIndexKeyBytes) {
      continue;  // kWholeKey
    }
    const absl::StatusOr<RecordHeader> entry =
        RecordOf(rocksdb::Slice(at->key().data(), kIndexKeyBytes), at->value());
    if (!entry.ok()) return entry.status();
    visit_last(is_amendment ? &*entry : nullptr);
    if (!is_amendment) last = *entry;
  }
  visit_last(nullptr);
  return ToStatus(at->status(), "scanning");
}

absl::Status DiskIndex::Sync() {
  // Not SyncWAL: after a failed write, on a full disk say, SyncWAL aborts the
  // process in RocksDB. A synced Put syncs all earlier writes, and fails then.
  return PutSynced(kSyncKey);
}

}  // namespace kdn::storage
