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

namespace kdn::storage {

// A request that waits, and until when.
struct Waiter {
  RequestId id;
  absl::Time deadline;
};

// A durable commit that waits for the disk, and whether it found the object
// here.
struct Committer {
  Waiter waiter;
  bool existed = false;
};

// One object the partition knows.
struct Entry {
  // Its way to the disk. kFailed: the disk refused the object; the next try is
  // at `retry_at`.
  enum class Write { kNone, kQueued, kInFlight, kFailed };

  ObjectInfo info;
  ObjectRef object;     // null: on disk only
  Slot slot = kNoSlot;  // in the eviction policy, while in memory
  uint64_t copy = 0;    // names the memory copy; 0: none
  int loans = 0;        // of the memory copy, not yet returned
  bool read_since_write = false;
  bool on_disk = false;
  bool synced = false;  // on disk, power loss included
  // False until a durable commit has reached the disk.
  bool visible = true;
  Write write = Write::kNone;
  bool write_sync = false;
  // The disk dropped a record of the object while a write was in flight: the
  // one before it, or its own.
  bool evicted_meanwhile = false;
  int write_failures = 0;  // in a row
  absl::Time retry_at;     // of kFailed
  std::vector<Committer> committers;

  bool on_its_way() const {
    return write == Write::kQueued || write == Write::kInFlight;
  }
  // In memory, and what would be left if the memory copy went: the disk's copy,
  // or nothing. Neither while it is on its way to disk.
  bool clean() const { return object != nullptr && on_disk && !on_its_way(); }
  bool sole() const { return object != nullptr && !on_disk && !on_its_way(); }
  // Evicted from the disk while a read waits for it.
  bool nowhere() const { return object == nullptr && !on_disk; }
};

// A read of the disk under way or waiting for its turn, shared by all that want
// the object.
struct DiskRead {
  std::shared_ptr<ArenaBlock> block;  // null: waits for room or its turn
  std::vector<Waiter> readers;
  // The object went away while the disk was at it: the answer means nothing.
  bool stale = false;
};

// Removals of one key that the disk has not answered, or that it failed.
struct DiskRemovals {
  std::string ns;
  ShardId shard;
  std::deque<std::optional<RequestId>> asked;  // nullopt: nobody waits
  bool failed = false;  // the last one: the disk holds the object still
};

struct Partition::Impl {
  Impl(Options options_in, std::shared_ptr<BlockSource> blocks_in)
      : options(options_in),
        blocks(std::move(blocks_in)),
        policy(blocks->budget_bytes() / BlockSource::kPageBytes),
        leases(options_in.leases_max),
        reservations(static_cast<size_t>(options_in.waiting_max)) {}

  // Null unless it is there, visible and of that namespace.
  Entry* FindVisible(const ChunkKey& key, const std::string& ns);

  // What `totals` counts of an entry is counted anew around `change`.
  template <typename Change>
  void Update(Entry& entry, Change change) {
    Subtract(entry);
    change(entry);
    Add(entry);
  }
  void Add(const Entry& entry) { Count(entry, totals, 1); }
  void Subtract(const Entry& entry) { Count(entry, totals, -1); }
  void SetOnDisk(Entry& entry, bool on_disk);

  // Room for `bytes`, evicting for it; null when nothing more may go.
  std::shared_ptr<ArenaBlock> MakeRoom(size_t bytes, absl::Time now);
  // The first to go: among clean entries, else among sole ones.
  Entry* FindVictim(absl::Time now);
  void PutInMemory(Entry& entry, ObjectRef object);
  // Lets the memory copy go, to make room. The entry goes too when that was the
  // only copy.
  void DropFromMemory(Entry& entry);
  // Lets the memory copy go for another reason than room.
  void ForgetMemory(Entry& entry);
  // What both have in common.
  void LeaveMemory(Entry& entry);
  // The answer to a reader: a loan of the memory copy.
  action::Found Lend(Entry& entry, RequestId id, Tier tier);
  // Removes every trace, answering whoever waits for it.
  void EraseEntry(const ChunkKey& key, const absl::Status& to_readers,
                  Actions& actions);

  // REQUIRES: a disk tier.
  void RemoveFromDisk(const ChunkKey& key, const std::string& ns, ShardId shard,
                      std::optional<RequestId> id, Actions& actions);
  // Erases an object that is neither in memory nor on disk any more.
  void ForgetIfNowhere(const ChunkKey& key, const absl::Status& why,
                       Actions& actions);

  // REQUIRES: there is no entry of it, or one that is nowhere.
  void CommitNew(RequestId id, const ObjectInfo& info, ObjectRef object,
                 Durability durability, absl::Time expires, absl::Time deadline,
                 Actions& actions);
  void CommitExisting(Entry& entry, RequestId id, const ObjectInfo& info,
                      ObjectRef object, Durability durability,
                      absl::Time expires, absl::Time deadline,
                      Actions& actions);
  void AwaitDurable(Entry& entry, Committer committer);
  // The end of all commits that wait for the entry's write.
  template <typename Answer>
  void AnswerCommitters(Entry& entry, Answer answer) {
    for (const Committer& committer : std::exchange(entry.committers, {})) {
      deadlines.erase({committer.waiter.deadline, committer.waiter.id});
      answer(committer);
    }
  }
  void QueueWrite(Entry& entry, bool sync);
  void StartWrites(absl::Time now, Actions& actions);
  // Takes failed writes whose time has come into the queue, no more than the
  // disk would start at once.
  void QueueRetries(absl::Time now);
  void CancelRetry(Entry& entry);
  void OnWritten(Entry& entry, Actions& actions);
  void OnWriteFailed(Entry& entry, const absl::Status& status, absl::Time now,
                     Actions& actions);
  // What a failed read says of the disk's copy.
  void OnReadFailed(Entry& entry, const absl::Status& status);
  // Takes the readers out of the read and answers them.
  void AnswerReaders(Entry& entry, DiskRead& read, const absl::Status& status,
                     Actions& actions);
  std::vector<Waiter> TakeReaders(DiskRead& read);
  // The object has come into memory by another way than from the disk: who
  // waits for the disk's copy need not, and may lose this one if it does.
  void AnswerReadersFromMemory(Entry& entry, Actions& actions);
  void StartReads(absl::Time now, Actions& actions);
  void ServeReservations(absl::Time now, Actions& actions);
  // Whatever may have become possible since the last event.
  void Advance(absl::Time now, Actions& actions);
  void ExpireReservations(absl::Time now, Actions& actions);
  void ExpireWaiters(absl::Time now, Actions& actions);
  void ExpireReader(const ChunkKey& key, RequestId id, Actions& actions);
  void EndPin(RequestId id, const absl::Status& status, Actions& actions);
  // The holds that have changed, as actions.
  void TellHolds(Actions& actions);
  void CountTerminal(Metric what, uint64_t count = 1);
  int waiting() const {
    return static_cast<int>(reservations.size()) + readers;
  }
  void CheckEntries() const;
  void CheckEntry(const Entry& entry) const;
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
  // All of one class and one requester: served in the order of their arrival.
  WaitingLine reservations;
  // What a deadline ends: a reader, or a commit that waits for the disk.
  struct Ends {
    ChunkKey key;
    bool is_commit = false;
  };
  std::map<std::pair<absl::Time, RequestId>, Ends> deadlines;
  std::deque<ChunkKey> write_queue;
  std::set<std::pair<absl::Time, ChunkKey>> retries;  // entries of kFailed
  int writes_in_flight = 0;
  // Completions still to come of writes whose object is gone.
  absl::flat_hash_map<ChunkKey, int> stale_writes;
  absl::node_hash_map<ChunkKey, DiskRead> reads;
  std::deque<ChunkKey> read_queue;
  absl::flat_hash_map<ChunkKey, DiskRemovals> removals;
  int reads_in_flight = 0;
  int readers = 0;        // of all reads
  MetricValues counters;  // without the totals
  // What a walk over all entries would count.
  struct Totals {
    // Of visible objects.
    uint64_t objects = 0;
    uint64_t memory_objects = 0;
    uint64_t disk_bytes = 0;
    // Of all entries. Without any of them nobody has to be asked to go.
    uint64_t clean = 0;
    uint64_t sole = 0;

    bool operator==(const Totals&) const = default;
  };
  Totals totals;
  // `times` is 1 or -1.
  static void Count(const Entry& entry, Totals& totals, int times);
};

// Put at the beginning of each event: debug and sanitizer builds check the
// invariants when the event is over.
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
