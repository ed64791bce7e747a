#ifndef KDN_STORAGE_EVICTION_POLICY_H_
#define KDN_STORAGE_EVICTION_POLICY_H_

#include <list>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "kv/chunk_key.h"

namespace kdn::storage {

// Says which object of the memory tier to let go next. Pure;
// thread-compatible.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // REQUIRES: not in the policy.
  virtual void OnInsert(const ChunkKey& key) = 0;
  // REQUIRES (both): in the policy.
  virtual void OnAccess(const ChunkKey& key) = 0;
  virtual void OnErase(const ChunkKey& key) = 0;
  // The first object, in the policy's order, that may go; it stays in the
  // policy until OnErase. Nullopt when none may.
  virtual std::optional<ChunkKey> Victim(
      absl::FunctionRef<bool(const ChunkKey&)> may_go) const = 0;
};

// Least recently used. On KV prefix traces it beats SIEVE, S3-FIFO and
// W-TinyLFU at most sizes, unlike on web traces.
class LruPolicy final : public EvictionPolicy {
 public:
  void OnInsert(const ChunkKey& key) override;
  void OnAccess(const ChunkKey& key) override;
  void OnErase(const ChunkKey& key) override;
  std::optional<ChunkKey> Victim(
      absl::FunctionRef<bool(const ChunkKey&)> may_go) const override;

 private:
  std::list<ChunkKey> order_;  // coldest first
  absl::flat_hash_map<ChunkKey, std::list<ChunkKey>::iterator> place_;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_EVICTION_POLICY_H_
