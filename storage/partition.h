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

// What a partition tells its driver to do. The driver performs the actions in
// their order.
namespace action {
// The reservation `id` may be written: at most block->size() bytes.
struct Granted {
  RequestId id;
  std::shared_ptr<ArenaBlock> block;
};
// The commit `id` is done, at the durability that it asked for. `info`
// describes the object that is now visible: the earlier one when `existed`.
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
// Hand to the disk tier; answer with OnDiskRemoved.
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
// From now on the object is held against eviction, on disk too (`held` is
// true), or it is not held any more.
struct HoldChanged {
  ChunkKey key;
  bool held = false;
};
// Ask the disk tier whether it has the object and will keep it while it is held
// (DiskTier::ConfirmHeld); answer with OnDiskHeld.
struct ConfirmHold {
  ChunkKey key;
  ShardId shard;
};
// The TTL or the durability class of an object on disk has changed. Hand to the
// disk tier (DiskTier::Amend); answer with OnDiskAmended.
struct AmendOnDisk {
  ObjectInfo info;
  bool sync = false;
};
// For the log: the disk did not take the object. The object stays in memory and
// is written again after `again_in`. Zero: the object is not written again,
// because it was never visible or is on disk already.
struct WriteFailed {
  ChunkKey key;
  absl::Status why;
  int failures = 0;  // in a row
  absl::Duration again_in = absl::ZeroDuration();
};
// For the log: an object that a lease or a TTL holds is lost. Memory has no
// copy, and the disk's copy is damaged, or the disk evicted it. The lease of a
// pin and the TTL of a commit that still wait for the disk do not count: that
// pin or commit is refused.
struct HeldLost {
  ChunkKey key;
};
}  // namespace action

using Action =
    std::variant<action::Granted, action::Committed, action::Found,
                 action::Missed, action::Refused, action::WriteToDisk,
                 action::ReadFromDisk, action::RemoveFromDisk, action::Removed,
                 action::Pinned, action::HoldChanged, action::ConfirmHold,
                 action::AmendOnDisk, action::WriteFailed, action::HeldLost>;
using Actions = std::vector<Action>;

// One partition of a node's shards: a memory tier over a disk tier, and the
// leases that protect objects from eviction. Events in, actions out: a
// partition does no I/O, reads no clock and has no threads; a storage actor, a
// test or the simulator drives it. Equal events, with equal answers of the
// block source, give equal actions.
//
// Invariants (CheckInvariants): an object is visible only after its commit; an
// object on its way to disk is never evicted; a leased object is never evicted
// from the node; every request gets exactly one terminal action, at the latest
// at its deadline (OnTick) or, for a removal or a pin, when the disk has
// answered; hits + misses + failures = lookups. Debug and sanitizer builds
// check them after every event.
class Partition {
 public:
  struct Options {
    bool has_disk = true;
    // How many writes the disk may have that it has not answered, and how many
    // amendments. Further writes and amendments wait.
    int disk_writes_max = 8;
    int disk_reads_max = 8;
    // How many reservations may wait for room, and reads for the disk,
    // together. A further request is refused with RESOURCE_EXHAUSTED.
    int waiting_max = 1024;
    int leases_max = 1 << 20;

    // How many reads and writes the disk may have at once.
    int disk_requests_max() const { return disk_writes_max + disk_reads_max; }
  };

  Partition(Options options, std::shared_ptr<BlockSource> blocks);
  ~Partition();

  // At the start: an object that the disk tier has. A TTL that had not run out
  // when the disk tier was opened holds the object again, until the next OnTick
  // at least. The only action is HoldChanged. The next event checks the
  // invariants.
  Actions Restore(const ObjectInfo& info, absl::Time opened);

  // Asks for a block to build an object in. Evicts objects for the block: those
  // that are also on disk, then those that the disk has refused or dropped and
  // that nothing holds. If too few bytes may go, it evicts nothing, and the
  // reservation waits until `deadline` for writes to reach the disk and for
  // readers to return their loans. Ends in Granted or
  // Refused(RESOURCE_EXHAUSTED, INVALID_ARGUMENT).
  Actions Reserve(RequestId id, size_t bytes, absl::Time deadline,
                  absl::Time now);
  // The caller of Reserve has given up. Ends the reservation in
  // Refused(CANCELLED) if it still waits, and does nothing otherwise.
  Actions Withdraw(RequestId id, absl::Time now);
  // Makes a complete object visible. The first commit of a key wins: the
  // earlier object stays, `block` is dropped and `existed` is true. A kDurable
  // commit ends when the disk has synced the object and its TTL. Any other
  // commit ends at once, with two exceptions. If an earlier kDurable commit of
  // the key still waits for the disk to write the object, both end together. If
  // the object is another version that is only on disk, a commit with a TTL
  // waits for OnDiskHeld as a pin does. `expires` is the end of the TTL, which
  // holds the object as a lease does; InfinitePast: none. Ends in Committed or
  // Refused. The TTL of a commit that is refused ends, unless another commit
  // has set the TTL too.
  Actions Commit(RequestId id, const ObjectInfo& info,
                 std::shared_ptr<ArenaBlock> block, Durability durability,
                 absl::Time expires, absl::Time deadline, absl::Time now);
  // Ends in Found, Missed or Refused. With another namespace than the object's,
  // it ends in Missed: a tenant learns nothing about another tenant's keys.
  // RESOURCE_EXHAUSTED at once when an object on disk is larger than the
  // memory.
  Actions Read(RequestId id, const ChunkKey& key, const std::string& ns,
               absl::Time deadline, absl::Time now);
  // The object's description; null when it is missing. Counts as a lookup.
  const ObjectInfo* Lookup(const ChunkKey& key, const std::string& ns);
  // Holds the object against eviction until `expires`, Unpin or ReleaseSession.
  // A second pin by the same session replaces the time of its first pin, unless
  // the second pin is refused. The pin of an object that is only on disk waits
  // for OnDiskHeld, unless the disk has already confirmed a hold: the disk may
  // have evicted the object. Ends in Pinned, or in Refused: NOT_FOUND,
  // RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED when the lease ends first, or the
  // disk's error.
  Actions Pin(RequestId id, const ChunkKey& key, const std::string& ns,
              SessionId session, absl::Time expires);
  // Ends in Pinned or Refused: NOT_FOUND.
  Actions Unpin(RequestId id, const ChunkKey& key, const std::string& ns,
                SessionId session);
  Actions ReleaseSession(SessionId session);
  // From now on every other request misses the object; readers that have it
  // finish. Ends in Removed when the disk has removed the object too, or in
  // Refused: NOT_FOUND; FAILED_PRECONDITION while another session pins the
  // object; UNAVAILABLE when the object may be back after the next start, and
  // then another Remove tries again.
  Actions Remove(RequestId id, const ChunkKey& key, const std::string& ns,
                 SessionId session);
  // A reader found the bytes of this version damaged. The memory copy is
  // dropped. If the disk has no copy, or a write is under way, the object is
  // removed. Ignored when the partition has another version, or no memory copy,
  // by now.
  Actions Discard(const ChunkKey& key, ObjectVersion version);

  Actions OnDiskWritten(const ChunkKey& key, const absl::Status& status,
                        absl::Time now);
  Actions OnDiskRead(const ChunkKey& key, const absl::Status& status,
                     absl::Time now);
  // REQUIRES: the answers for one key come in the order of its RemoveFromDisk.
  Actions OnDiskRemoved(const ChunkKey& key, const absl::Status& status);
  // Answers ConfirmHold. OK: the disk has the object and keeps it while it is
  // held. NOT_FOUND: the disk has evicted it. REQUIRES: the answers for one key
  // come in the order of its ConfirmHold.
  Actions OnDiskHeld(const ChunkKey& key, const absl::Status& status,
                     absl::Time now);
  // Answers AmendOnDisk. NOT_FOUND: the disk has evicted the object. After
  // another error, the partition amends the object again later. REQUIRES: the
  // answer comes in order with the answers to the writes of the key.
  Actions OnDiskAmended(const ChunkKey& key, const absl::Status& status,
                        absl::Time now);
  // The disk tier has evicted a record of this version. A memory copy is
  // written again if a lease or a TTL holds the object, if the copy was read
  // since it was written, or if a write is in flight, because the evicted
  // record may be that write's. Otherwise the copy is written again when it is
  // next read, held or stored. REQUIRES: no notice comes after the answer to a
  // write that has replaced the record.
  Actions OnEvictedFromDisk(const ChunkKey& key, ObjectVersion version,
                            absl::Time now);
  // A reader has let go of the memory copy that it had on loan.
  Actions OnReturned(const Loan& loan, absl::Time now);
  // The object's description, visible or not; null when there is no such
  // object.
  const ObjectInfo* Find(const ChunkKey& key) const;
  // Whether a lease or a TTL holds the object against eviction.
  bool Held(const ChunkKey& key, absl::Time now) const;
  // Time has passed, or a writer has given memory back: serves waiting
  // requests, ends requests past their deadline, expires leases, repeats failed
  // writes and amendments that are due, and asks the disk again to confirm
  // holds. Call at least every 100 ms.
  Actions OnTick(absl::Time now);

  // Repeats all failed writes and amendments at once: the node is about to
  // stop.
  Actions Flush(absl::Time now);
  // Whether an object or an amendment is on its way to disk or queued for it. A
  // failure that waits for its next try does not count.
  bool HasUnwritten() const;
  // The metrics of kv/metric_table.h from "lookups" to "leases". Takes the same
  // time for any number of objects. hits + misses + failures = lookups, always.
  MetricValues counters() const;
  void CheckInvariants() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_PARTITION_H_
