#ifndef KDN_STORAGE_PARTITION_H_
#define KDN_STORAGE_PARTITION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "kv/metric_values.h"
#include "storage/block_source.h"
#include "storage/object_info.h"

namespace kdn::storage {

using RequestId = StrongInt<struct StorageRequestIdTag, uint64_t>;

// One reader's use of an object's memory copy. The reader keeps the copy in
// memory until the driver hands the loan back with OnReturned.
struct Loan {
  ChunkKey key;
  uint64_t copy = 0;
};

// What the partition asks its driver to do. Performed in order.
namespace action {
// The reservation `id` may be written: at most block->size() bytes.
struct Granted {
  RequestId id;
  std::shared_ptr<ArenaBlock> block;
};
// The commit `id` holds at the durability it asked for. `info` is of the
// object that is now visible: the earlier one when `existed`.
struct Committed {
  RequestId id;
  ObjectInfo info;
  bool existed = false;
};
// The read `id` is answered with the object's bytes. Answer with OnReturned
// once the reader has let go of `object`.
struct Found {
  RequestId id;
  ObjectInfo info;
  ObjectRef object;
  Loan loan;
};
struct Missed {
  RequestId id;
};
struct Refused {
  RequestId id;
  absl::Status why;
};
// Hand to the disk tier; answer with OnDiskWritten once the disk has let go of
// `object`.
struct WriteToDisk {
  ObjectInfo info;
  ObjectRef object;
  bool sync = false;
};
// Read into the block; answer with OnDiskRead once the disk has let go of the
// block.
struct ReadFromDisk {
  ObjectInfo info;
  std::shared_ptr<ArenaBlock> block;
};
// Answer with OnDiskRemoved.
struct RemoveFromDisk {
  ChunkKey key;
  ShardId shard;
};
// The removal `id` is done, on the disk too.
struct Removed {
  RequestId id;
};
// The pin or unpin `id` is done.
struct Pinned {
  RequestId id;
};
// From now on the object is held against eviction, on disk too, or no longer.
struct HoldChanged {
  ChunkKey key;
  bool held = false;
};
// For the log: the disk did not take the object. The object stays in memory and
// is written again after `again_in`. Zero: it is not written again, since it
// was never visible, or is on disk already.
struct WriteFailed {
  ChunkKey key;
  absl::Status why;
  int failures = 0;  // in a row
  absl::Duration again_in = absl::ZeroDuration();
};
// For the log: the disk dropped an object that a lease or a TTL holds and that
// memory does not have. It decided to before it heard of the hold.
struct HeldLost {
  ChunkKey key;
};
}  // namespace action

using Action =
    std::variant<action::Granted, action::Committed, action::Found,
                 action::Missed, action::Refused, action::WriteToDisk,
                 action::ReadFromDisk, action::RemoveFromDisk, action::Removed,
                 action::Pinned, action::HoldChanged, action::WriteFailed,
                 action::HeldLost>;
using Actions = std::vector<Action>;

// One partition of a node's shards: a memory tier over a disk tier, and the
// leases that hold eviction off. Events in, actions out: it does no I/O, reads
// no clock and knows no threads; a storage actor, a test or the simulator
// drives it. Equal events, with equal answers of the block source, give equal
// actions.
//
// Invariants (CheckInvariants): an object is visible only once committed; an
// object on its way to disk is never evicted; a leased object is never evicted
// from the node; every request gets exactly one terminal action, at the latest
// at its deadline (OnTick; a removal, when the disk has answered); counters
// conserve. Debug and sanitizer builds check them after every event.
class Partition {
 public:
  struct Options {
    bool has_disk = true;
    // Writes handed to the disk and not yet answered; more wait in memory.
    int disk_writes_max = 8;
    int disk_reads_max = 8;
    // Requests waiting for room or disk; one more is RESOURCE_EXHAUSTED.
    int waiting_max = 1024;
    int leases_max = 1 << 20;
  };

  Partition(Options options, std::shared_ptr<BlockSource> blocks);
  ~Partition();

  // At start: an object the disk tier already holds. A TTL that has not run
  // out by now holds it again.
  Actions Restore(const ObjectInfo& info, absl::Time now);

  // Asks for a block to build an object in. Evicts clean objects for it, waits
  // for dirty ones to reach the disk, until `deadline`. Ends in Granted or
  // Refused(RESOURCE_EXHAUSTED, INVALID_ARGUMENT).
  Actions Reserve(RequestId id, size_t bytes, absl::Time deadline,
                  absl::Time now);
  // Makes a complete object visible. First wins: if the key is there already
  // the earlier object stays, `block` is dropped, and existed is true. With
  // kDurable ends once the disk has synced it, else at once. Until `expires`
  // it is held like a lease (a TTL not yet run out holds eviction off).
  Actions Commit(RequestId id, const ObjectInfo& info,
                 std::shared_ptr<ArenaBlock> block, Durability durability,
                 absl::Time expires, absl::Time deadline, absl::Time now);
  // Ends in Found, Missed or Refused. A namespace other than the object's is a
  // miss: a tenant learns nothing of another's keys.
  Actions Read(RequestId id, const ChunkKey& key, const std::string& ns,
               absl::Time deadline, absl::Time now);
  // No read of bytes: null when missing. Counts as a lookup.
  const ObjectInfo* Lookup(const ChunkKey& key, const std::string& ns);
  // Holds the object against eviction until `expires` or ReleaseSession.
  // Pinning again extends. Ends in Pinned or Refused: NOT_FOUND,
  // RESOURCE_EXHAUSTED.
  Actions Pin(RequestId id, const ChunkKey& key, const std::string& ns,
              SessionId session, absl::Time expires);
  // Ends in Pinned or Refused: NOT_FOUND.
  Actions Unpin(RequestId id, const ChunkKey& key, const std::string& ns,
                SessionId session);
  Actions ReleaseSession(SessionId session);
  // From now on the object is gone for every other request (readers that hold
  // it finish). Ends in Removed once the disk has forgotten it as well; in
  // Refused: NOT_FOUND, FAILED_PRECONDITION while another session pins it,
  // UNAVAILABLE when the disk would bring it back at the next start. Another
  // Remove then tries again.
  Actions Remove(RequestId id, const ChunkKey& key, const std::string& ns,
                 SessionId session);
  // A reader found the bytes of this version damaged: drop it here. Ignored if
  // another version is there by now.
  Actions Discard(const ChunkKey& key, ObjectVersion version);

  Actions OnDiskWritten(const ChunkKey& key, const absl::Status& status,
                        absl::Time now);
  Actions OnDiskRead(const ChunkKey& key, const absl::Status& status,
                     absl::Time now);
  // In the order of the RemoveFromDisk of that key.
  Actions OnDiskRemoved(const ChunkKey& key, const absl::Status& status);
  // The disk tier dropped a record of this version on its own, to make room.
  // What memory holds is written again if a lease or a TTL holds it, if it was
  // read since it was written, or if a write is in flight: the notice may be of
  // that write's record. REQUIRES: no notice comes after the answer to a write
  // that has replaced the record.
  Actions OnEvictedFromDisk(const ChunkKey& key, ObjectVersion version,
                            absl::Time now);
  // A reader has let go of the memory copy that it was lent.
  Actions OnReturned(const Loan& loan, absl::Time now);
  // What is known of the object, visible or not; null when it is not here.
  const ObjectInfo* Find(const ChunkKey& key) const;
  // A lease or a TTL holds the object against eviction.
  bool Held(const ChunkKey& key, absl::Time now) const;
  // Memory was given back by a writer, or time has passed: serves waiting
  // requests, ends those past their deadline, expires leases, writes again what
  // failed. Call at least every 100 ms.
  Actions OnTick(absl::Time now);

  // Writes that failed are tried at once: the node is about to stop.
  Actions Flush(absl::Time now);
  // Objects that are on their way to disk, or wait for their turn. Those that
  // wait to be tried again do not count.
  bool HasUnwritten() const;
  // Takes the same time for any number of objects.
  // The metrics of kv/metric_table.h from "lookups" to "leases".
  // hits + misses + failures = lookups, always.
  MetricValues counters() const;
  void CheckInvariants() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_PARTITION_H_
