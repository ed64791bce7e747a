#ifndef KDN_TESTS_STORAGE_POLICY_CACHE_H_
#define KDN_TESTS_STORAGE_POLICY_CACHE_H_

#include <cstddef>
#include <cstdint>

#include "storage/eviction_policy.h"

namespace kdn::storage {

// The smallest cache simulator: a policy and a table from hash to slot. An
// object is a hash of weight 1.
template <EvictionPolicy Policy>
class PolicyCache {
 public:
  explicit PolicyCache(uint32_t capacity)
      : capacity_(capacity), policy_(capacity) {
    policy_.Reserve(capacity);
    index_.Reserve(capacity, HashOf());
  }

  // True for a hit. A miss brings the object in.
  bool Request(uint64_t hash) {
    const Slot found = index_.Find(hash, HashOf());
    if (found != kNoSlot) {
      policy_.Access(found);
      return true;
    }
    if (policy_.size() == capacity_) {
      const Slot victim = policy_.Victim([](Slot) { return true; });
      index_.Erase(victim, HashOf());
      policy_.Evict(victim);
    }
    index_.Insert(policy_.Insert({hash, 1}), HashOf());
    return false;
  }
  // Removes the object. False when the cache does not have it.
  bool Remove(uint64_t hash) {
    const Slot found = index_.Find(hash, HashOf());
    if (found == kNoSlot) return false;
    index_.Erase(found, HashOf());
    policy_.Erase(found);
    return true;
  }
  bool Has(uint64_t hash) const {
    return index_.Find(hash, HashOf()) != kNoSlot;
  }

  uint32_t size() const { return policy_.size(); }
  size_t MemoryBytes() const {
    return policy_.MemoryBytes() + index_.MemoryBytes();
  }
  void CheckInvariants() const {
    policy_.CheckInvariants();
    KDN_CHECK(index_.size() == policy_.size(), "an object is not found");
  }

 private:
  auto HashOf() const {
    return [this](Slot slot) { return policy_.hash(slot); };
  }

  const uint32_t capacity_;
  Policy policy_;
  SlotIndex index_;
};

}  // namespace kdn::storage

#endif  // KDN_TESTS_STORAGE_POLICY_CACHE_H_
