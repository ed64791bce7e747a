#ifndef KDN_STORAGE_PARTITION_IMPL_H_
#define KDN_STORAGE_PARTITION_IMPL_H_

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "kv/invariants.h"
#include "kv/waiting_line.h"
#include "storage/eviction_lru.h"
#include "storage/lease_table.h"
#include "storage/partition.h"
#include "storage/partition_entry.h"

namespace kdn::storage {

// The answer to a commit of an object that the disk has lost meanwhile.
inline constexpr char kVersionIsGone[] =
    "the stored version is gone: store the chunk again";

// The time until a disk request that has failed so often in a row is repeated.
absl::Duration RetryDelay(int failures);

struct Partition::Impl {
  Impl(Options options_in, std::shared_ptr<BlockSource> blocks_in)
      : options(options_in),
        blocks(std::move(blocks_in)),
        policy(blocks->budget_bytes() / BlockSource::kPageBytes),
        leases(options_in.leases_max),
        reservations(static_cast<size_t>(options_in.waiting_max)) {}

  // Null unless the object is known, visible and of that namespace.
  Entry* FindVisible(const ChunkKey& key, const std::string& ns);

  // Changes the entry, and `totals` with it.
  template <typename Change>
  void Update(Entry& entry, Change change) {
    Subtract(entry);
    change(entry);
    Add(entry);
  }
  void Add(const Entry& entry) { Count(entry, totals, 1); }
  void Subtract(const Entry& entry) { Count(entry, totals, -1); }
  void SetOnDisk(Entry& entry, bool on_disk);

  // A block of so many bytes. Evicts objects for it. Null, and nothing is
  // evicted, when too few bytes may go.
  std::shared_ptr<ArenaBlock> MakeRoom(size_t bytes);
  // The next entry to evict from memory: an entry that is clean(), or else an
  // entry that is sole(). Null: no entry may go.
  Entry* FindVictim();
  // Also answers the requests that wait for the disk to confirm the hold, and
  // asks the disk if it was not asked: the object stays in memory until the
  // disk has answered.
  void PutInMemory(Entry& entry, ObjectRef object, Actions& actions);
  // Drops the memory copy to make room, and the entry if that was the only
  // copy.
  void DropFromMemory(Entry& entry);
  // Drops the memory copy for another reason.
  void ForgetMemory(Entry& entry);
  // The common part of DropFromMemory and ForgetMemory.
  void LeaveMemory(Entry& entry);
  // Lends the memory copy to a reader.
  action::Found Lend(Entry& entry, RequestId id, Tier tier);
  // Removes the object and answers the requests that wait for it.
  void EraseEntry(const ChunkKey& key, const absl::Status& to_readers,
                  Actions& actions);

  // REQUIRES: there is a disk tier.
  void RemoveFromDisk(const ChunkKey& key, const std::string& ns, ShardId shard,
                      std::optional<RequestId> id, Actions& actions);
  // Erases the object if it is neither in memory nor on disk.
  void ForgetIfNowhere(const ChunkKey& key, const absl::Status& why,
                       absl::Time now, Actions& actions);
  // The disk does not have the object any more.
  void LoseDiskCopy(Entry& entry, absl::Time now, Actions& actions);

  // REQUIRES: the key has no entry, or its entry is nowhere().
  void CommitNew(RequestId id, const ObjectInfo& info, ObjectRef object,
                 Durability durability, absl::Time expires, absl::Time deadline,
                 Actions& actions);
  void CommitExisting(Entry& entry, RequestId id, const ObjectInfo& info,
                      ObjectRef object, Durability durability,
                      absl::Time expires, absl::Time deadline,
                      Actions& actions);
  void AwaitDisk(Entry& entry, const Committer& committer);
  // Ends the commit; its terms count from now on.
  void Acknowledge(Entry& entry, const Committer& committer, Actions& actions);
  // Ends the commits that need not wait any more.
  void AcknowledgeFulfilled(Entry& entry, Actions& actions);
  // The request waits until the disk has confirmed the hold.
  void AwaitHold(Entry& entry, const HoldWaiter& waiter, Actions& actions);
  // Refuses all commits that wait for the disk: their terms do not count.
  void RefuseCommitters(Entry& entry, const absl::Status& status,
                        Actions& actions);
  void QueueWrite(Entry& entry, bool sync);
  // The object is in use, by a reader, a hold or another store. If only memory
  // has the object, the disk gets a copy: without one, a restart loses the
  // object. A write that has failed waits for its next try.
  void WriteIfSole(Entry& entry);
  // Like QueueWrite, but a write in flight that does not sync does not count.
  void WriteAgain(Entry& entry, bool sync);
  void StartWrites(absl::Time now, Actions& actions);
  // Queues failed writes that are due, as many as the disk would start at once.
  void QueueRetries(absl::Time now);
  void CancelRetry(Entry& entry);
  // Queues an amendment if the object needs one. An amendment that has failed
  // waits for its next try, unless a commit waits for it.
  void AmendIfNeeded(Entry& entry);
  void StartAmendments(absl::Time now, Actions& actions);
  // Queues failed amendments that are due.
  void QueueAmendments(absl::Time now);
  void OnAmended(Entry& entry, const absl::Status& status, absl::Time now,
                 Actions& actions);
  void OnWritten(Entry& entry, Actions& actions);
  void OnWriteFailed(Entry& entry, const absl::Status& status, absl::Time now,
                     Actions& actions);
  // Marks the disk's copy as gone if the error says so.
  void OnReadFailed(Entry& entry, const absl::Status& status);
  // Ends all readers of the read: the object in memory is their answer, or else
  // the status.
  void AnswerReaders(Entry& entry, DiskRead& read, const absl::Status& status,
                     Actions& actions);
  std::vector<Waiter> TakeReaders(DiskRead& read);
  // A commit has brought the object into memory: its readers need not wait for
  // the disk.
  void AnswerReadersFromMemory(Entry& entry, Actions& actions);
  // The readers that came while a stale read was in flight get a read of their
  // own.
  void ReadAgain(const ChunkKey& key, std::vector<Waiter> waiting);
  void StartReads(Actions& actions);
  void ServeReservations(Actions& actions);
  // Starts writes and reads and serves reservations, as far as possible now.
  void Advance(absl::Time now, Actions& actions);
  void ExpireReservations(absl::Time now, Actions& actions);
  void ExpireWaiters(absl::Time now, Actions& actions);
  void ExpireReader(const ChunkKey& key, RequestId id, absl::Time now,
                    Actions& actions);
  void EndPin(RequestId id, const absl::Status& status, Actions& actions);
  // Reports the holds that have changed, and asks the disk to confirm new ones.
  void TellHolds(Actions& actions);
  // Asks the disk to confirm the hold. Does nothing when the disk has no copy
  // or has been asked before, or when nothing needs the answer: memory has no
  // copy that an eviction could drop, and no request waits.
  void AskToConfirm(Entry& entry, Actions& actions);
  // Asks the disk again about the memory copies of which it could not confirm
  // the hold. They cannot be evicted before it has.
  void RetryConfirms(absl::Time now, Actions& actions);
  void OnConfirmAnswer(Entry& entry, const absl::Status& status, absl::Time now,
                       Actions& actions);
  // The pins that wait are about to fail: the leases become what they were.
  void TakeBackLeases(const Entry& entry);
  void AnswerHoldWaiters(Entry& entry, const absl::Status& status,
                         Actions& actions);
  // Refuses the requests that wait for the hold that has ended.
  void RefuseHoldWaiters(const HoldEnd& end, Actions& actions);
  void AnswerHoldWaiter(Entry& entry, const HoldWaiter& waiter,
                        const absl::Status& status, Actions& actions);
  // A commit was refused: its TTL does not count.
  void CutTtl(Entry& entry);
  void CountTerminal(Metric what, uint64_t count = 1);
  int waiting() const {
    return static_cast<int>(reservations.size()) + readers;
  }
  void CheckEntries() const;
  void CheckEntry(const Entry& entry) const;
  // CheckEntry in debug and sanitizer builds.
  void DCheckEntry([[maybe_unused]] const Entry& entry) const {
#ifndef NDEBUG
    CheckEntry(entry);
#endif
  }
  void CheckRequests() const;

  const Options options;
  const std::shared_ptr<BlockSource> blocks;
  // Node-based: entries keep their address while others come and go.
  absl::node_hash_map<ChunkKey, Entry> entries;
  LruPolicy policy;  // exactly the entries with a memory copy
  // The entry that has the policy's slot; null for a slot that is free.
  std::vector<Entry*> by_slot;
  uint64_t last_copy = 0;
  LeaseTable leases;
  // All reservations have one class and one requester, so the line is first in,
  // first out.
  WaitingLine reservations;
  // The request that a deadline ends: a reader, or a commit that waits for the
  // disk to write the object or to confirm its hold.
  struct Ends {
    ChunkKey key;
    bool is_commit = false;
  };
  std::map<std::pair<absl::Time, RequestId>, Ends> deadlines;
  std::deque<ChunkKey> write_queue;  // exactly the entries of kQueued
  std::set<std::pair<absl::Time, ChunkKey>> retries;  // entries of kFailed
  int writes_in_flight = 0;
  // How many writes in flight do not count, because their object is gone or
  // another write follows.
  absl::flat_hash_map<ChunkKey, int> stale_writes;
  // How many ConfirmHold actions the disk has not answered. Only the last
  // answer counts: the earlier answers are about holds that have ended.
  absl::flat_hash_map<ChunkKey, int> confirms;
  // As `confirms`, but for AmendOnDisk.
  absl::flat_hash_map<ChunkKey, int> amendments;
  int amendments_in_flight = 0;  // the sum of `amendments`
  // The entries of kQueued and of kFailed. There may be other keys too, because
  // an entry may have changed since.
  std::deque<ChunkKey> amend_queue;
  std::set<std::pair<absl::Time, ChunkKey>> amend_retries;
  // When to ask the disk again about a hold. An entry may have changed since.
  std::set<std::pair<absl::Time, ChunkKey>> confirm_retries;
  absl::node_hash_map<ChunkKey, DiskRead> reads;
  std::deque<ChunkKey> read_queue;
  absl::flat_hash_map<ChunkKey, DiskRemovals> removals;
  int reads_in_flight = 0;
  int readers = 0;        // of all reads
  MetricValues counters;  // without the totals
  // Equal to a count over all entries.
  struct Totals {
    // Of visible objects.
    uint64_t objects = 0;
    uint64_t memory_objects = 0;
    uint64_t disk_bytes = 0;
    // Of all entries that may_go(): the bytes of memory that their eviction
    // frees. 0: the eviction policy need not be asked.
    uint64_t clean_bytes = 0;
    uint64_t sole_bytes = 0;

    bool operator==(const Totals&) const = default;
  };
  Totals totals;
  // `times` is 1 or -1.
  static void Count(const Entry& entry, Totals& totals, int times);
};

// Declared first in each event. Debug and sanitizer builds check the invariants
// when the event ends.
class CheckedEvent {
 public:
  explicit CheckedEvent(const Partition* partition) : partition_(partition) {}
  ~CheckedEvent() { KDN_DCHECK_INVARIANTS(*partition_); }
  CheckedEvent(const CheckedEvent&) = delete;
  CheckedEvent& operator=(const CheckedEvent&) = delete;

 private:
  [[maybe_unused]] const Partition* const partition_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_PARTITION_IMPL_H_
