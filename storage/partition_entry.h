#ifndef KDN_STORAGE_PARTITION_ENTRY_H_
#define KDN_STORAGE_PARTITION_ENTRY_H_

// What a partition knows of one object, and of the requests that wait for it.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kv/answers.h"
#include "kv/ids.h"
#include "storage/block_source.h"
#include "storage/eviction_policy.h"
#include "storage/object_info.h"
#include "storage/partition.h"

namespace kdn::storage {

// A request that waits until its deadline at the latest.
struct Waiter {
  RequestId id;
  absl::Time deadline;
};

// What the stores of an object have asked for. The disk keeps this with the
// object.
struct Terms {
  absl::Time expires = absl::InfinitePast();
  Durability durability = Durability::kCache;

  bool operator==(const Terms&) const = default;
  bool durable() const { return durability == Durability::kDurable; }
  // Both terms become the stricter ones.
  void Raise(const Terms& other) {
    expires = std::max(expires, other.expires);
    durability = std::max(durability, other.durability);
  }
};

// A commit that waits for the disk. If it is not durable, it waits for the
// write that makes the object visible.
struct Committer {
  Waiter waiter;
  bool existed = false;  // the commit found the object here
  Terms terms;
};

// A pin, or a commit with a TTL, that waits for the disk to confirm that the
// object stays.
struct HoldWaiter {
  RequestId id;
  std::optional<SessionId> session;  // of a pin; nullopt: a commit
  // Of a pin: when the session's lease ended before this pin; nullopt: there
  // was none. A failure of this pin brings that back.
  std::optional<absl::Time> lease_before;
  // Of a commit.
  absl::Time deadline;
  Terms terms;
};

// One object the partition knows.
struct Entry {
  // The state of the write to disk. kFailed: the disk refused the object; the
  // next try is at `retry_at`.
  enum class Write { kNone, kQueued, kInFlight, kFailed };
  // kNone: nothing holds the object against eviction. The other values: a lease
  // or a TTL holds the object. The disk may have evicted its copy before it
  // heard of the hold, so the partition asks the disk. kAsked: the disk has not
  // answered yet. kConfirmed: the disk keeps its copy. kUnconfirmed: the disk
  // has no copy, was not asked yet, or failed to answer.
  enum class Hold { kNone, kUnconfirmed, kAsked, kConfirmed };
  // The state of the amendment of the object on disk. kNone: the disk has the
  // terms of the object, will get them with a write, or has no copy. kFailed:
  // the next try is at `amend_at`.
  enum class Amend { kNone, kQueued, kInFlight, kFailed };

  ObjectInfo info;
  ObjectRef object;     // null: on disk only
  Slot slot = kNoSlot;  // in the eviction policy, while in memory
  uint64_t copy = 0;    // names the memory copy; 0: there is none
  int loans = 0;        // of the memory copy, not yet returned
  bool read_since_write = false;
  bool on_disk = false;
  bool synced = false;  // on disk, and survives a power loss
  // False until a durable commit has reached the disk.
  bool visible = true;
  Write write = Write::kNone;
  bool write_sync = false;
  // The disk evicted a record of the object while a write was in flight: either
  // the record before the write, or the written one.
  bool evicted_meanwhile = false;
  Terms write_terms;       // of the write in flight
  int write_failures = 0;  // in a row
  absl::Time retry_at;     // of kFailed
  std::vector<Committer> committers;
  Hold hold = Hold::kNone;
  int confirm_failures = 0;  // in a row
  absl::Time confirm_at;  // of the last failure: when the disk is asked again
  std::vector<HoldWaiter> hold_waiters;
  // The terms of the disk's copy; nullopt: not known, because the disk failed
  // to change them.
  std::optional<Terms> disk_terms = Terms();
  // False: a power loss may take the disk's terms back, but not its copy.
  bool terms_synced = true;
  Amend amend = Amend::kNone;
  Terms amend_terms;  // of the amendment in flight, like the next field
  bool amend_sync = false;
  int amend_failures = 0;  // in a row
  absl::Time amend_at;     // of kFailed

  // What the disk should keep with the object: the terms of the commits that
  // were acknowledged, which are in `info`, or that wait for the disk.
  Terms terms() const {
    Terms terms{info.expires, info.durability};
    for (const Committer& it : committers) terms.Raise(it.terms);
    return terms;
  }
  // The engine of a durable store was promised that the object survives a power
  // loss, so later writes and amendments of the object sync too.
  bool must_sync() const { return terms().durable(); }
  bool needs_amendment() const {
    return on_disk && !on_its_way() &&
           (disk_terms != terms() || (must_sync() && !terms_synced));
  }
  // What a commit with these terms asks for is done.
  bool fulfils(const Terms& asked) const {
    if (!visible || !asked.durable()) return visible;
    return synced && (asked.expires == absl::InfinitePast() ||
                      (terms_synced && disk_terms &&
                       disk_terms->expires >= asked.expires));
  }
  bool on_its_way() const {
    return write == Write::kQueued || write == Write::kInFlight;
  }
  // The memory copy may be dropped: the disk has a copy, and keeps it if the
  // object is held.
  bool clean() const {
    return object != nullptr && on_disk && !on_its_way() &&
           (hold == Hold::kNone || hold == Hold::kConfirmed);
  }
  // The object is in memory only, and no write is on its way.
  bool sole() const { return object != nullptr && !on_disk && !on_its_way(); }
  // An eviction from memory may take the object. An object on loan stays: its
  // memory would not become free before the reader returns it.
  bool may_go() const {
    if (loans > 0) return false;
    // A clean object that is held may go: a lease keeps an object on the node,
    // not in memory.
    return clean() || (sole() && hold == Hold::kNone);
  }
  // The disk has evicted the object, and a read still waits for it.
  bool nowhere() const { return object == nullptr && !on_disk; }
};

// A disk read that is in flight or waits for its turn. All readers of the
// object share it.
struct DiskRead {
  std::shared_ptr<ArenaBlock> block;  // null: waits for room or its turn
  std::vector<Waiter> readers;
  // The object was removed, replaced or written again while the read was in
  // flight: neither the bytes nor an error count. Readers that came later wait
  // for another read.
  bool stale = false;
};

// The removals of one key that the disk has not answered, or that have failed.
struct DiskRemovals {
  std::string ns;
  ShardId shard;
  std::deque<std::optional<RequestId>> asked;  // nullopt: no request waits
  bool failed = false;  // the last one: the disk may bring the object back
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_PARTITION_ENTRY_H_
