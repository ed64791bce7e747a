#include "storage/lease_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::storage {

absl::Status LeaseTable::Acquire(const ChunkKey& key, SessionId session,
                                 absl::Time expires) {
  if (ended_.contains(session)) {
    return absl::CancelledError("the session has ended");
  }
  const auto holds = by_key_.find(key);
  const bool extends =
      holds != by_key_.end() && holds->second.leases.contains(session);
  if (!extends && leases_ >= leases_max_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "all ", leases_max_,
        " leases are in use: unpin chunks, or wait until pins end"));
  }
  if (extends) {
    by_expiry_.erase({holds->second.leases[session], key, session});
  } else {
    ++leases_;
  }
  HoldsToExtend(key).leases[session] = expires;
  by_session_[session].insert(key);
  by_expiry_.emplace(expires, key, session);
  return absl::OkStatus();
}

absl::Status LeaseTable::Release(const ChunkKey& key, SessionId session) {
  const auto holds = by_key_.find(key);
  if (holds == by_key_.end() || !holds->second.leases.contains(session)) {
    return absl::NotFoundError("the session holds no lease on the chunk");
  }
  EraseLease(key, session);
  return absl::OkStatus();
}

void LeaseTable::ReleaseSession(SessionId session) {
  if (!by_session_.contains(session)) return;
  ended_.insert(session);
  ReleaseEnded(kEndsACall);
}

int LeaseTable::ReleaseEnded(int most) {
  int released = 0;
  for (; released < most && !ended_.empty(); ++released) {
    const SessionId session = *ended_.begin();
    const auto keys = by_session_.find(session);
    KDN_CHECK(keys != by_session_.end(), "an ended session has leases");
    const ChunkKey key = *keys->second.begin();
    EraseLease(key, session);
  }
  return released;
}

void LeaseTable::HoldUntil(const ChunkKey& key, absl::Time expires) {
  if (expires == absl::InfinitePast()) return;
  Holds& holds = HoldsToExtend(key);
  if (holds.ttl >= expires) return;
  if (holds.ttl != absl::InfinitePast()) {
    by_expiry_.erase({holds.ttl, key, std::nullopt});
  }
  holds.ttl = expires;
  by_expiry_.emplace(expires, key, std::nullopt);
}

void LeaseTable::CutTtl(const ChunkKey& key, absl::Time expires) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end() || found->second.ttl <= expires) return;
  if (expires == absl::InfinitePast()) return EraseTtl(found);
  by_expiry_.erase({found->second.ttl, key, std::nullopt});
  found->second.ttl = expires;
  by_expiry_.emplace(expires, key, std::nullopt);
}

void LeaseTable::Forget(const ChunkKey& key) {
  auto holds = by_key_.find(key);
  if (holds == by_key_.end()) return;
  std::vector<SessionId> sessions;
  for (const auto& [session, expires] : holds->second.leases) {
    sessions.push_back(session);
  }
  for (SessionId session : sessions) EraseLease(key, session);
  holds = by_key_.find(key);
  if (holds != by_key_.end()) EraseTtl(holds);
}

void LeaseTable::Expire(absl::Time now) {
  for (int ends = ReleaseEnded(kEndsACall); ends < kEndsACall; ++ends) {
    if (by_expiry_.empty() || std::get<0>(*by_expiry_.begin()) > now) return;
    const auto [expires, key, session] = *by_expiry_.begin();
    if (session) {
      EraseLease(key, *session);
    } else {
      EraseTtl(by_key_.find(key));
    }
  }
}

bool LeaseTable::Has(const ChunkKey& key,
                     std::optional<SessionId> session) const {
  const auto holds = by_key_.find(key);
  if (holds == by_key_.end()) return false;
  if (!session) return holds->second.ttl != absl::InfinitePast();
  return holds->second.leases.contains(*session) && !ended_.contains(*session);
}

std::optional<absl::Time> LeaseTable::LeaseEnd(const ChunkKey& key,
                                               SessionId session) const {
  if (!Has(key, session)) return std::nullopt;
  return by_key_.find(key)->second.leases.find(session)->second;
}

bool LeaseTable::Held(const ChunkKey& key, absl::Time now) const {
  const auto holds = by_key_.find(key);
  if (holds == by_key_.end()) return false;
  return holds->second.ttl > now ||
         std::any_of(holds->second.leases.begin(), holds->second.leases.end(),
                     [this, now](const auto& lease) {
                       return lease.second > now &&
                              !ended_.contains(lease.first);
                     });
}

bool LeaseTable::HeldByOther(const ChunkKey& key, SessionId session) const {
  const auto holds = by_key_.find(key);
  if (holds == by_key_.end()) return false;
  return std::any_of(holds->second.leases.begin(), holds->second.leases.end(),
                     [this, session](const auto& lease) {
                       return lease.first != session &&
                              !ended_.contains(lease.first);
                     });
}

LeaseTable::Holds& LeaseTable::HoldsToExtend(const ChunkKey& key) {
  const auto [holds, is_new] = by_key_.try_emplace(key);
  if (is_new) changes_.push_back({key, true});
  return holds->second;
}

void LeaseTable::EraseLease(const ChunkKey& key, SessionId session) {
  const auto holds = by_key_.find(key);
  KDN_CHECK(holds != by_key_.end(), "only a live lease is erased");
  const auto lease = holds->second.leases.find(session);
  KDN_CHECK(lease != holds->second.leases.end(), "only a live lease is erased");
  KDN_CHECK(by_expiry_.erase({lease->second, key, session}) == 1,
            "every lease has an expiry");
  holds->second.leases.erase(lease);
  --leases_;
  const auto keys = by_session_.find(session);
  KDN_CHECK(keys != by_session_.end(), "every lease has a session");
  keys->second.erase(key);
  if (keys->second.empty()) {
    by_session_.erase(keys);
    ended_.erase(session);
  }
  ends_.push_back({holds->first, session});
  DropIfEmpty(holds);
}

void LeaseTable::EraseTtl(ByKey::iterator holds) {
  KDN_CHECK(
      by_expiry_.erase({holds->second.ttl, holds->first, std::nullopt}) == 1,
      "every time to live has an expiry");
  holds->second.ttl = absl::InfinitePast();
  ends_.push_back({holds->first, std::nullopt});
  DropIfEmpty(holds);
}

void LeaseTable::DropIfEmpty(ByKey::iterator holds) {
  if (!holds->second.leases.empty()) return;
  if (holds->second.ttl != absl::InfinitePast()) return;
  changes_.push_back({holds->first, false});
  by_key_.erase(holds);
}

void LeaseTable::CheckInvariants() const {
  size_t leases = 0;
  size_t ttls = 0;
  for (const auto& [key, holds] : by_key_) {
    const bool has_ttl = holds.ttl != absl::InfinitePast();
    KDN_CHECK(has_ttl || !holds.leases.empty(),
              "a key without a lease or a TTL");
    leases += holds.leases.size();
    ttls += has_ttl ? 1 : 0;
  }
  size_t by_session = 0;
  for (const auto& [session, keys] : by_session_) by_session += keys.size();
  for (const SessionId session : ended_) {
    KDN_CHECK(by_session_.contains(session), "an ended session has leases");
  }
  KDN_CHECK(leases + ttls == by_expiry_.size() && by_session == leases &&
                leases == static_cast<size_t>(leases_),
            "the maps have different leases");
}

}  // namespace kdn::storage
