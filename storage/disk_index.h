#ifndef KDN_STORAGE_DISK_INDEX_H_
#define KDN_STORAGE_DISK_INDEX_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "storage/record.h"

namespace rocksdb {
class DB;
class Status;
}  // namespace rocksdb

namespace kdn::storage {

// The index of live objects, in RocksDB: shard ‖ chunk key -> record header.
// The objects of a shard are one range of keys. Thread-safe.
//
// A record may have an amendment: another entry, with the TTL and the
// durability class that count instead of the record's own. An amendment counts
// for the record with its sequence only, and so also for a copy of that record.
class DiskIndex {
 public:
  // UNAVAILABLE when another process has the index open. DATA_LOSS when RocksDB
  // finds the index damaged: the caller destroys the index and builds a new
  // one.
  static absl::StatusOr<std::unique_ptr<DiskIndex>> Open(
      const std::string& directory);
  static absl::Status Destroy(const std::string& directory);
  ~DiskIndex();

  // Whether MarkWhole was called. Until then the index may lack objects,
  // because it is being built; a kill may leave it in that state.
  absl::StatusOr<bool> IsWhole();
  absl::Status MarkWhole();

  // When one of these four has returned, its change survives kill -9. After the
  // next Sync, the change survives a power loss too. RESOURCE_EXHAUSTED when
  // the file system is full.
  //
  // Put and Erase drop the amendment of the object's record, if it has one.
  absl::Status Put(const RecordHeader& record);
  absl::Status Erase(ShardId shard, const ChunkKey& key);
  // Points the entry to a copy of the record. The amendment stays.
  absl::Status Move(const RecordHeader& copy);
  // From now on, the TTL and the durability class of `amended` count for the
  // record with its sequence. REQUIRES: the index has that record.
  absl::Status Amend(const RecordHeader& amended);
  // The record as its own page describes it. Nullopt: there is no entry.
  // DATA_LOSS: the entry is damaged.
  absl::StatusOr<std::optional<RecordHeader>> Get(ShardId shard,
                                                  const ChunkKey& key);
  // The record with its amendment. UNAVAILABLE when the amendment cannot be
  // read.
  absl::StatusOr<RecordHeader> Amended(const RecordHeader& record);
  // Visits all records in (shard, key) order: the record as its own page
  // describes it, and the record with its amendment. DATA_LOSS: an entry is
  // damaged.
  absl::Status ForEach(absl::FunctionRef<void(const RecordHeader& record,
                                              const RecordHeader& amended)>
                           visit);
  // May be called by several threads at once; they share the work.
  absl::Status Sync();

 private:
  // Runs the change. If the file system is full, takes RocksDB out of its
  // read-only mode and runs the change once more.
  absl::Status Change(absl::FunctionRef<rocksdb::Status()> change,
                      const char* what);
  absl::Status PutEntry(const std::string& key, const RecordHeader& record);
  // Writes a key without a value, and syncs it and all earlier changes.
  absl::Status PutSynced(const char* key);
  explicit DiskIndex(std::unique_ptr<rocksdb::DB> db);
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_INDEX_H_
