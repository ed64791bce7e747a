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

  // When one of these two has returned, its change survives kill -9. After the
  // next Sync, the change survives a power loss too. RESOURCE_EXHAUSTED when
  // the file system is full.
  absl::Status Put(const RecordHeader& record);
  absl::Status Erase(ShardId shard, const ChunkKey& key);
  // Nullopt: there is no entry. DATA_LOSS: the entry is damaged.
  absl::StatusOr<std::optional<RecordHeader>> Get(ShardId shard,
                                                  const ChunkKey& key);
  // Visits all entries in (shard, key) order. DATA_LOSS: an entry is damaged.
  absl::Status ForEach(absl::FunctionRef<void(const RecordHeader&)> visit);
  // May be called by several threads at once; they share the work.
  absl::Status Sync();

 private:
  // Runs the change. If the file system is full, takes RocksDB out of its
  // read-only mode and runs the change once more.
  absl::Status Change(absl::FunctionRef<rocksdb::Status()> change,
                      const char* what);
  // Writes a key without a value, and syncs it and all earlier changes.
  absl::Status PutSynced(const char* key);
  explicit DiskIndex(std::unique_ptr<rocksdb::DB> db);
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_INDEX_H_
