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

// Where every live object lies: shard ‖ chunk key -> record header, in RocksDB,
// so that one shard is one contiguous key range. Thread-safe.
class DiskIndex {
 public:
  // UNAVAILABLE when another process has it open; DATA_LOSS when RocksDB finds
  // it damaged: destroy it and rebuild.
  static absl::StatusOr<std::unique_ptr<DiskIndex>> Open(
      const std::string& directory);
  static absl::Status Destroy(const std::string& directory);
  ~DiskIndex();

  // Whether MarkWhole was called: an index that is still being rebuilt knows
  // only a part of what there is, and a kill may leave it so.
  absl::StatusOr<bool> IsWhole();
  absl::Status MarkWhole();

  // Survives kill -9 once it returns, power loss after the next Sync.
  // RESOURCE_EXHAUSTED when the file system is full.
  absl::Status Put(const RecordHeader& record);
  absl::Status Erase(ShardId shard, const ChunkKey& key);
  // Nullopt when it is not there; DATA_LOSS when what is there makes no sense.
  absl::StatusOr<std::optional<RecordHeader>> Get(ShardId shard,
                                                  const ChunkKey& key);
  // In (shard, key) order.
  absl::Status ForEach(absl::FunctionRef<void(const RecordHeader&)> visit);
  // May be called by several threads at once; they share the work.
  absl::Status Sync();

 private:
  // Runs a change again after RocksDB has been told that there is room.
  absl::Status Change(absl::FunctionRef<rocksdb::Status()> change,
                      const char* what);
  explicit DiskIndex(std::unique_ptr<rocksdb::DB> db);
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_INDEX_H_
