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

// A chunk is held against eviction from now on, or no longer.
struct HoldChange {
  ChunkKey key;
  bool held = false;

  bool operator==(const HoldChange&) const = default;
};

// Which chunks are held against eviction, by whom, and until when. Sessions
// hold chunks with leases; a chunk that was stored with a time to live is held
// by that time too. A lease ends with its time, its session or its release,
// whichever comes first.
//
// Every operation takes time for the leases that it makes or ends, not for all
// leases. Invariant: the three maps hold the same leases and times to live.
// Pure; thread-compatible.
class LeaseTable {
 public:
  explicit LeaseTable(int leases_max) : leases_max_(leases_max) {}

  // Grants or extends. RESOURCE_EXHAUSTED when leases_max are live.
  absl::Status Acquire(const ChunkKey& key, SessionId session,
                       absl::Time expires);
  // NOT_FOUND when the session has no lease on the chunk.
  absl::Status Release(const ChunkKey& key, SessionId session);
  void ReleaseSession(SessionId session);
  // The chunk's time to live. Of two the later one counts; InfinitePast: none.
  void HoldUntil(const ChunkKey& key, absl::Time expires);
  // The chunk is gone, and all that holds it.
  void Forget(const ChunkKey& key);
  void Expire(absl::Time now);
  // What has changed since the last call, in order.
  std::vector<HoldChange> TakeChanges() { return std::exchange(changes_, {}); }

  bool Held(const ChunkKey& key, absl::Time now) const;
  // A session other than this one has a lease on it.
  bool HeldByOther(const ChunkKey& key, SessionId session) const;
  // Live leases. Times to live do not count.
  int size() const { return leases_; }
  void CheckInvariants() const;

 private:
  struct Holds {
    std::map<SessionId, absl::Time> leases;
    absl::Time ttl = absl::InfinitePast();  // infinite past: none
  };
  using ByKey = absl::flat_hash_map<ChunkKey, Holds>;

  // The holds of the key, empty ones if there are none yet: the caller adds.
  Holds& HoldsToExtend(const ChunkKey& key);
  void EraseLease(const ChunkKey& key, SessionId session);
  void EraseTtl(ByKey::iterator holds);
  void DropIfEmpty(ByKey::iterator holds);

  const int leases_max_;
  int leases_ = 0;
  ByKey by_key_;
  absl::flat_hash_map<SessionId, std::set<ChunkKey>> by_session_;
  // No session: a time to live.
  std::set<std::tuple<absl::Time, ChunkKey, std::optional<SessionId>>>
      by_expiry_;
  std::vector<HoldChange> changes_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_LEASE_TABLE_H_
