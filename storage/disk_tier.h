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

// The disk tier of one node. Objects lie in append-only segment files, which
// are written and read with O_DIRECT through io_uring (with pread and pwrite
// where the kernel refuses io_uring). RocksDB is the index: shard ‖ key ->
// record header. docs/formats.md describes both.
//
// The tier owns its threads. Unless a call says that it blocks, it returns at
// once, and its callback runs exactly once, on a disk thread. Thread-safe.
class DiskTier {
 public:
  struct Options {
    std::string directory;
    // Converts expiries between the monotonic and the wall clock. Outlives the
    // tier.
    const Clock* clock = nullptr;
    uint64_t capacity_bytes = 0;  // of all segments together
    uint64_t segment_bytes = 256u << 20;
    int queue_depth = 16;
    uint64_t block_bytes = 1u << 20;  // of one I/O
    // How many reads and writes may be queued. A further request is answered
    // with RESOURCE_EXHAUSTED. Removals are never refused.
    int requests_max = 256;
    // A segment with a smaller share of live bytes is cleaned: its live records
    // are written to another segment, and its file is deleted.
    double clean_below_live = 0.5;
    // Called on a disk thread with each object that the tier drops on its own:
    // evicted because the capacity is reached or the file system is full, or
    // found damaged when it had to be moved. An object is not evicted while
    // holds() is true for it. The calls and the answers to writes of one object
    // come in order. There is no call when a later write has put the object
    // back.
    std::function<void(const ObjectInfo&)> on_evicted;
    // Whether the object must stay (leases, TTL). Called on any thread and
    // under locks of the tier: it must not call the tier. The tier asks when it
    // writes the object and before it evicts the object.
    std::function<bool(ShardId, const ChunkKey&)> holds;
    // False: the tier acts as if the kernel refused io_uring. For tests.
    bool use_io_uring = true;
  };

  // Opens the tier or creates it. Normally reads only the index and not the
  // segments: a write is answered only when its object is in the index, so a
  // record that a kill has cut off belongs to a write that was never answered.
  // When the index is missing, damaged or incomplete, it is rebuilt from the
  // segments, and every record is verified. UNAVAILABLE when another process
  // uses the directory, FAILED_PRECONDITION when the directory is not a disk
  // tier's.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Open(Options options);
  virtual ~DiskTier() = default;

  using Done = absl::AnyInvocable<void(absl::Status)>;

  // Appends the object. Done(OK): the object survives kill -9 and, with `sync`,
  // a power loss. RESOURCE_EXHAUSTED when the disk is full of objects that may
  // not be evicted. Idempotent per (key, version).
  virtual void Write(const ObjectInfo& info, ObjectRef object, bool sync,
                     Done done) = 0;
  // Reads the object into `block` and verifies record header, identity and
  // checksum. NOT_FOUND when the tier does not have this version. DATA_LOSS
  // when the record is damaged; the record is then dropped and counted. A read
  // does not wait for writes and removals: it sees those that were answered
  // before the read was asked for. REQUIRES: block->size() == info.bytes.
  virtual void Read(const ObjectInfo& info, std::shared_ptr<ArenaBlock> block,
                    Done done) = 0;
  // Done(OK): the object is gone, also after a restart.
  virtual void Remove(ShardId shard, const ChunkKey& key, Done done) = 0;
  // The object was read from a copy in memory. The tier counts that as a read,
  // so that an eviction keeps the object's record. Ignored when too many
  // touches are queued.
  virtual void Touch(ShardId shard, const ChunkKey& key) = 0;
  // Call when the answer of holds() for the object has changed.
  virtual void HeldChanged(ShardId shard, const ChunkKey& key) = 0;
  // Done(OK): the tier has the object, and does not evict it while holds() is
  // true for it. NOT_FOUND: the tier does not have the object, possibly because
  // it was evicted before holds() became true. Does not wait for writes.
  virtual void ConfirmHeld(ShardId shard, const ChunkKey& key, Done done) = 0;

  // Gives the object the TTL and the durability class of `info`: a later store
  // has changed them. Done(OK): the change survives kill -9 and, with `sync`, a
  // power loss; not the loss of the index, unless the tier has moved the object
  // since. NOT_FOUND when the tier does not have this version. Happens in order
  // with the writes and removals of the object. Never refused.
  virtual void Amend(const ObjectInfo& info, bool sync, Done done) = 0;

  // Visits every live object, in (shard, key) order, with the TTL and the
  // durability class of its last write or Amend. Blocks: for the start.
  virtual absl::Status ForEach(
      absl::FunctionRef<void(const ObjectInfo&)> visit) = 0;
  // Blocks until every earlier call is done and synced.
  virtual absl::Status Flush() = 0;

  // The metrics of kv/metric_table.h that begin with "disk_". The caller counts
  // the latencies and the failed writes.
  virtual MetricValues counters() const = 0;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_DISK_TIER_H_
