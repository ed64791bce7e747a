#ifndef KDN_STORAGE_DISK_TIER_H_
#define KDN_STORAGE_DISK_TIER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kv/chunk_key.h"
#include "kv/clock.h"
#include "kv/ids.h"
#include "kv/metric_values.h"
#include "storage/arena.h"
#include "storage/object_info.h"

namespace kdn::storage {

// The disk tier of one node: append-only segment files written and read with
// O_DIRECT through io_uring (plain pread/pwrite where the kernel refuses), and
// RocksDB as the index only (shard ‖ key -> segment, offset, length, checksum).
// Owns its threads; every call returns at once and the callback runs on a disk
// thread, exactly once. Thread-safe. Record layout: docs/formats.md.
class DiskTier {
 public:
  struct Options {
    std::string directory;
    // Converts expiries between the monotonic and the wall clock. Outlives the
    // tier.
    const Clock* clock = nullptr;
    uint64_t capacity_bytes = 0;  // segments together
    uint64_t segment_bytes = 256u << 20;
    int queue_depth = 16;
    uint64_t block_bytes = 1u << 20;  // of one I/O
    // Queued reads and writes; one more: RESOURCE_EXHAUSTED. Removals always
    // get in.
    int requests_max = 256;
    // A segment with a smaller share of live bytes is cleaned: its live records
    // are written again, and its file is deleted.
    double clean_below_live = 0.5;
    // Called (on a disk thread) with an object evicted to make room: capacity
    // reached or the file system full. Never an object that holds() is true
    // for; hot objects only when nothing else can go. Called in order with the
    // answers to writes of the object, and not when one of them has put the
    // object back.
    std::function<void(const ObjectInfo&)> on_evicted;
    // True while the object must stay (leases, TTL). May be called on any
    // thread. The tier asks when the object is written; HeldChanged tells the
    // tier of every later change.
    std::function<bool(ShardId, const ChunkKey&)> holds;
    // False: pretend the kernel refuses io_uring (tests run both ways).
    bool use_io_uring = true;
  };

  // Opens or creates. Reads no segment: an object is acknowledged after the
  // index knows it, so what a kill cut off was promised to nobody. Only when
  // the index is missing, damaged or not whole is it rebuilt from the segments,
  // every record verified. UNAVAILABLE when another process holds the
  // directory, FAILED_PRECONDITION when it is something else's.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Open(Options options);
  virtual ~DiskTier() = default;

  using Done = absl::AnyInvocable<void(absl::Status)>;

  // Appends the object. Done(OK) means: found again after kill -9, and after
  // power loss too when `sync`. RESOURCE_EXHAUSTED when the disk is full of
  // objects that may not be evicted. Idempotent per (key, version).
  virtual void Write(const ObjectInfo& info, ObjectRef object, bool sync,
                     Done done) = 0;
  // Reads the object into `block` (block->size() == info.bytes) and verifies
  // record header, identity and checksum. NOT_FOUND, or DATA_LOSS (the record
  // is then dropped and counted). Does not wait for writes and removals: a read
  // sees what was answered before it was asked.
  virtual void Read(const ObjectInfo& info, std::shared_ptr<ArenaBlock> block,
                    Done done) = 0;
  // The object is not found from now on, also after a restart once done.
  virtual void Remove(ShardId shard, const ChunkKey& key, Done done) = 0;
  // The object was read from a copy in memory: the tier counts that as a read,
  // so that an eviction keeps the object's record. Ignored when too many wait.
  virtual void Touch(ShardId shard, const ChunkKey& key) = 0;
  // holds() answers otherwise than before for the object.
  virtual void HeldChanged(ShardId shard, const ChunkKey& key) = 0;

  // Every live object, in (shard, key) order. Blocking: for start-up. The
  // expiry that an object was written with holds again.
  virtual absl::Status ForEach(
      absl::FunctionRef<void(const ObjectInfo&)> visit) = 0;
  // Blocks until all that was asked before is done and synced.
  virtual absl::Status Flush() = 0;

  // The metrics of kv/metric_table.h that begin with "disk_", but for the
  // latencies and the failed writes, which the caller counts.
  virtual MetricValues counters() const = 0;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_TIER_H_
