#ifndef KDN_STORAGE_PARTITION_IMPL_H_
#define KDN_STORAGE_PARTITION_IMPL_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/node_hash_map.h"
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
  RequestId id;
  absl::Time deadline;
  bool existed = false;
};

// One object the partition knows.
struct Entry {
  // Its way to the disk.
  enum class Write { kNone, kQueued, kInFlight };

  ObjectInfo info;
  ObjectRef object;     // null: on disk only
  Slot slot = kNoSlot;  // in the eviction policy, while in memory
  bool on_disk = false;
  bool synced = false;  // on disk, power loss included
  // False until a durable commit has reached the disk.
  bool visible = true;
  Write write = Write::kNone;
  bool write_sync = false;
  absl::Time expires = absl::InfinitePast();  // TTL
  std::vector<Committer> committers;

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

struct ReserveWaiter {
  RequestId id;
  size_t bytes = 0;
  absl::Time deadline;
};

struct Partition::Impl {
  Impl(Options options_in, std::shared_ptr<Arena> arena_in)
      : options(options_in),
        arena(std::move(arena_in)),
        policy(arena->budget_bytes() / Arena::kPageBytes),
        leases(options_in.leases_max) {}

  // Null unless it is there, visible and of that namespace.
  Entry* FindVisible(const ChunkKey& key, const std::string& ns);
  bool MayEvict(const Entry& entry, absl::Time now) const;
  // Room for `bytes`, evicting for it; null when nothing more may go.
  std::shared_ptr<ArenaBlock> MakeRoom(size_t bytes, absl::Time now);
  // The first to go among those with a copy on disk, or those without.
  Entry* FindVictim(bool on_disk, absl::Time now);
  void PutInMemory(Entry& entry, ObjectRef object);
  // Lets the memory copy go, to make room. The entry goes too when that was the
  // only copy.
  void DropFromMemory(Entry& entry);
  // Takes the memory copy out of the eviction order: it is gone for another
  // reason than room.
  void ForgetMemory(Entry& entry);
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
  void QueueWrite(Entry& entry, bool sync);
  void StartWrites(Actions& actions);
  void OnWriteFailed(Entry& entry, const absl::Status& status,
                     Actions& actions);
  // What a failed read says of the disk's copy.
  void OnReadFailed(Entry& entry, const absl::Status& status);
  void AnswerReaders(const Entry& entry, const DiskRead& read,
                     const absl::Status& status, Actions& actions);
  // The object has come into memory by another way than from the disk: who
  // waits for the disk's copy need not, and may lose this one if it does.
  void AnswerReadersFromMemory(const Entry& entry, Actions& actions);
  void StartReads(absl::Time now, Actions& actions);
  void ServeReservations(absl::Time now, Actions& actions);
  // Whatever may have become possible since the last event.
  void Advance(absl::Time now, Actions& actions);
  void ExpireWaiters(absl::Time now, Actions& actions);
  void CountTerminal(uint64_t PartitionCounters::*what, uint64_t count = 1);

  const Options options;
  const std::shared_ptr<Arena> arena;
  // Node-based: entries keep their address while others come and go.
  absl::node_hash_map<ChunkKey, Entry> entries;
  LruPolicy policy;  // exactly the entries with a memory copy
  // The entry that has the policy's slot; null for a slot that is free.
  std::vector<Entry*> by_slot;
  LeaseTable leases;
  std::deque<ReserveWaiter> reservations;
  // Entries with committers.
  absl::flat_hash_set<ChunkKey> committing;
  std::deque<ChunkKey> write_queue;
  int writes_in_flight = 0;
  // Completions still to come of writes whose object is gone.
  absl::flat_hash_map<ChunkKey, int> stale_writes;
  absl::node_hash_map<ChunkKey, DiskRead> reads;
  std::deque<ChunkKey> read_queue;
  absl::flat_hash_map<ChunkKey, DiskRemovals> removals;
  int reads_in_flight = 0;
  int waiting = 0;  // reservations and readers
  PartitionCounters counters;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_PARTITION_IMPL_H_
