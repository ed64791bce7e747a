#ifndef KDN_STORAGE_LEASE_TABLE_H_
#define KDN_STORAGE_LEASE_TABLE_H_

#include <set>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"

namespace kdn::storage {

// Who holds which chunk against eviction, and until when. A lease ends with its
// time, its session, or its release, whichever comes first.
//
// Invariant: the three maps hold the same leases. Pure; thread-compatible.
class LeaseTable {
 public:
  explicit LeaseTable(int leases_max) : leases_max_(leases_max) {}

  // Grants or extends. RESOURCE_EXHAUSTED when leases_max are live.
  absl::Status Acquire(const ChunkKey& key, SessionId session,
                       absl::Time expires);
  // NOT_FOUND when the session has no lease on the chunk.
  absl::Status Release(const ChunkKey& key, SessionId session);
  void ReleaseSession(SessionId session);
  // The chunk is gone, and its leases with it.
  void Forget(const ChunkKey& key);
  void Expire(absl::Time now);

  bool Held(const ChunkKey& key, absl::Time now) const;
  // A session other than this one has a lease on it.
  bool HeldByOther(const ChunkKey& key, SessionId session) const;
  int size() const { return static_cast<int>(by_expiry_.size()); }
  void CheckInvariants() const;

 private:
  void Erase(const ChunkKey& key, SessionId session);

  const int leases_max_;
  absl::flat_hash_map<ChunkKey, absl::flat_hash_map<SessionId, absl::Time>>
      by_key_;
  absl::flat_hash_map<SessionId, std::set<ChunkKey>> by_session_;
  std::set<std::tuple<absl::Time, ChunkKey, SessionId>> by_expiry_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_LEASE_TABLE_H_
