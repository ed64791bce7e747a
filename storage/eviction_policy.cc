#include "storage/eviction_policy.h"

#include "kv/check.h"

namespace kdn::storage {

void LruPolicy::OnInsert(const ChunkKey& key) {
  const auto at = order_.insert(order_.end(), key);
  KDN_CHECK(place_.emplace(key, at).second, "inserted twice");
}

void LruPolicy::OnAccess(const ChunkKey& key) {
  const auto place = place_.find(key);
  KDN_CHECK(place != place_.end(), "accessed but not inserted");
  order_.splice(order_.end(), order_, place->second);
}

void LruPolicy::OnErase(const ChunkKey& key) {
  const auto place = place_.find(key);
  KDN_CHECK(place != place_.end(), "erased but not inserted");
  order_.erase(place->second);
  place_.erase(place);
}

std::optional<ChunkKey> LruPolicy::Victim(
    absl::FunctionRef<bool(const ChunkKey&)> may_go) const {
  for (const ChunkKey& key : order_) {
    if (may_go(key)) return key;
  }
  return std::nullopt;
}

}  // namespace kdn::storage
