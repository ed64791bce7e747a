#include "storage/lease_table.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::storage {

absl::Status LeaseTable::Acquire(const ChunkKey& key, SessionId session,
                                 absl::Time expires) {
  const auto leases = by_key_.find(key);
  const bool extends =
      leases != by_key_.end() && leases->second.contains(session);
  if (extends) {
    Erase(key, session);
  } else if (size() >= leases_max_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", leases_max_, " leases are taken"));
  }
  by_key_[key][session] = expires;
  by_session_[session].insert(key);
  by_expiry_.emplace(expires, key, session);
  return absl::OkStatus();
}

absl::Status LeaseTable::Release(const ChunkKey& key, SessionId session) {
  const auto leases = by_key_.find(key);
  if (leases == by_key_.end() || !leases->second.contains(session)) {
    return absl::NotFoundError("the session holds no lease on the chunk");
  }
  Erase(key, session);
  return absl::OkStatus();
}

void LeaseTable::ReleaseSession(SessionId session) {
  const auto keys = by_session_.find(session);
  if (keys == by_session_.end()) return;
  const std::vector<ChunkKey> all(keys->second.begin(), keys->second.end());
  for (const ChunkKey& key : all) Erase(key, session);
}

void LeaseTable::Forget(const ChunkKey& key) {
  const auto leases = by_key_.find(key);
  if (leases == by_key_.end()) return;
  std::vector<SessionId> sessions;
  for (const auto& [session, expires] : leases->second) {
    sessions.push_back(session);
  }
  for (SessionId session : sessions) Erase(key, session);
}

void LeaseTable::Expire(absl::Time now) {
  while (!by_expiry_.empty() && std::get<0>(*by_expiry_.begin()) <= now) {
    const auto [expires, key, session] = *by_expiry_.begin();
    Erase(key, session);
  }
}

bool LeaseTable::Held(const ChunkKey& key, absl::Time now) const {
  const auto leases = by_key_.find(key);
  if (leases == by_key_.end()) return false;
  for (const auto& [session, expires] : leases->second) {
    if (expires > now) return true;
  }
  return false;
}

bool LeaseTable::HeldByOther(const ChunkKey& key, SessionId session) const {
  const auto leases = by_key_.find(key);
  if (leases == by_key_.end()) return false;
  return leases->second.size() > (leases->second.contains(session) ? 1u : 0u);
}

void LeaseTable::Erase(const ChunkKey& key, SessionId session) {
  const auto leases = by_key_.find(key);
  KDN_CHECK(leases != by_key_.end(), "only a live lease is erased");
  const auto lease = leases->second.find(session);
  KDN_CHECK(lease != leases->second.end(), "only a live lease is erased");
  KDN_CHECK(by_expiry_.erase({lease->second, key, session}) == 1,
            "every lease has an expiry");
  leases->second.erase(lease);
  if (leases->second.empty()) by_key_.erase(leases);
  const auto keys = by_session_.find(session);
  KDN_CHECK(keys != by_session_.end(), "every lease has a session");
  keys->second.erase(key);
  if (keys->second.empty()) by_session_.erase(keys);
}

void LeaseTable::CheckInvariants() const {
  size_t by_key = 0;
  for (const auto& [key, leases] : by_key_) {
    KDN_CHECK(!leases.empty(), "a key without leases is kept");
    by_key += leases.size();
  }
  size_t by_session = 0;
  for (const auto& [session, keys] : by_session_) by_session += keys.size();
  KDN_CHECK(by_key == by_expiry_.size() && by_session == by_expiry_.size(),
            "the lease maps differ");
}

}  // namespace kdn::storage
