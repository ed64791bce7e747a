#ifndef KDN_STORAGE_LEASE_TABLE_H_
#define KDN_STORAGE_LEASE_TABLE_H_

#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"

namespace kdn::storage {

// From now on the chunk is held against eviction (`held` is true), or it is not
// held any more.
struct HoldChange {
  ChunkKey key;
  bool held = false;

  bool operator==(const HoldChange&) const = default;
};

// A lease or a TTL of the chunk that has ended.
struct HoldEnd {
  ChunkKey key;
  std::optional<SessionId> session;  // nullopt: the TTL

  bool operator==(const HoldEnd&) const = default;
};

// The chunks that are held against eviction. Sessions hold chunks with leases;
// a time to live (TTL) holds a chunk too. A lease ends at its time, with its
// session or when it is released, whichever comes first.
//
// The time of an operation depends on the leases that it makes or ends, not on
// all leases. A session may have a million leases, and as many may end at one
// time: a call of ReleaseSession or Expire ends kEndsACall of them at most, and
// the next calls of Expire end the others. Until then these leases count among
// leases_max; the other functions act as if they had ended.
//
// Invariant: the three maps have the same leases and TTLs.
// Pure; thread-compatible.
class LeaseTable {
 public:
  static constexpr int kEndsACall = 4096;

  explicit LeaseTable(int leases_max) : leases_max_(leases_max) {}

  // Gives the session a lease, or changes the time of its lease.
  // RESOURCE_EXHAUSTED when there are leases_max leases. CANCELLED while the
  // leases of the session are being ended.
  absl::Status Acquire(const ChunkKey& key, SessionId session,
                       absl::Time expires);
  // NOT_FOUND when the session has no lease on the chunk.
  absl::Status Release(const ChunkKey& key, SessionId session);
  void ReleaseSession(SessionId session);
  // Sets the chunk's TTL, unless its present TTL ends later. InfinitePast: no
  // TTL.
  void HoldUntil(const ChunkKey& key, absl::Time expires);
  // Sets the chunk's TTL back to this time, if it ends later. InfinitePast: the
  // TTL ends.
  void CutTtl(const ChunkKey& key, absl::Time expires);
  // The chunk is gone: its leases and its TTL end.
  void Forget(const ChunkKey& key);
  void Expire(absl::Time now);
  // The changes since the last call, in order.
  std::vector<HoldChange> TakeChanges() { return std::exchange(changes_, {}); }
  // The leases and TTLs that have ended since the last call, in order.
  std::vector<HoldEnd> TakeEnds() { return std::exchange(ends_, {}); }

  // When the session's lease on the chunk ends; nullopt: there is none.
  std::optional<absl::Time> LeaseEnd(const ChunkKey& key,
                                     SessionId session) const;
  // Whether the chunk has the session's lease, or a TTL if `session` is
  // nullopt.
  bool Has(const ChunkKey& key, std::optional<SessionId> session) const;
  bool Held(const ChunkKey& key, absl::Time now) const;
  // Whether another session has a lease on the chunk.
  bool HeldByOther(const ChunkKey& key, SessionId session) const;
  // The number of leases. TTLs do not count.
  int size() const { return leases_; }
  void CheckInvariants() const;

 private:
  struct Holds {
    std::map<SessionId, absl::Time> leases;
    absl::Time ttl = absl::InfinitePast();  // InfinitePast: none
  };
  using ByKey = absl::flat_hash_map<ChunkKey, Holds>;

  // The holds of the key, created if there are none. The caller adds a hold.
  Holds& HoldsToExtend(const ChunkKey& key);
  void EraseLease(const ChunkKey& key, SessionId session);
  // Ends at most so many leases of sessions in `ended_`. Answers how many.
  int ReleaseEnded(int most);
  void EraseTtl(ByKey::iterator holds);
  void DropIfEmpty(ByKey::iterator holds);

  const int leases_max_;
  int leases_ = 0;
  ByKey by_key_;
  absl::flat_hash_map<SessionId, std::set<ChunkKey>> by_session_;
  // Sessions that have leases and were released.
  std::set<SessionId> ended_;
  // An entry without a session is a TTL.
  std::set<std::tuple<absl::Time, ChunkKey, std::optional<SessionId>>>
      by_expiry_;
  std::vector<HoldChange> changes_;
  std::vector<HoldEnd> ends_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_LEASE_TABLE_H_
