#ifndef KDN_STORAGE_EVICTION_POLICY_H_
#define KDN_STORAGE_EVICTION_POLICY_H_

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kv/chunk_key.h"
#include "storage/eviction_slots.h"

namespace kdn::storage {

// An object, as an eviction policy sees it.
struct Cached {
  // 64 well mixed bits that name the object. Ghosts are found by these bits, so
  // they must be the same in every process.
  uint64_t hash = 0;
  // The room that the object takes, in the unit of the policy's capacity. At
  // least 1.
  uint32_t weight = 1;
};

// A hash of a chunk's key, for policies that remember objects that are gone.
inline uint64_t EvictionHashOf(const ChunkKey& key) { return OwnBits(key); }

// Decides which object of a cache goes next. The memory tier, the disk tier and
// cache simulators use the same policies. A policy knows its objects by slot:
// `Insert` gives the slot, and the object has it until `Evict` or `Erase`. The
// owner maps keys to slots and slots to objects.
//
// A policy is pure and deterministic: equal calls give equal victims. No policy
// is thread-safe. The constructor takes the capacity of the cache, in the unit
// of the weights.
//
//   Insert(object)   the object is in the cache from now on.
//   Access(slot)     the object was read.
//   Evict(slot)      the object was dropped to make room. The policy may keep
//                    its hash as a ghost.
//   Erase(slot)      the object was dropped for another reason. The policy
//                    forgets it.
//   Victim(may_go)   the slot of the first object, in the policy's order, for
//                    which `may_go(slot)` is true; kNoSlot when there is none.
//                    The object stays until Evict. An object that may not go
//                    keeps its place and its counters.
//   hash(slot)       the hash that the object was inserted with.
//   MemoryBytes()    the heap memory of the policy, ghosts included.
//
// `Access`, `Evict`, `Erase` and `hash` REQUIRE a slot that is in use.
template <typename P>
concept EvictionPolicy = std::constructible_from<P, uint64_t> &&
    requires(P policy, const P& fixed, Slot slot, const Cached& object,
             uint32_t objects) {
  { policy.Insert(object) } -> std::same_as<Slot>;
  policy.Access(slot);
  policy.Evict(slot);
  policy.Erase(slot);
  {
    policy.Victim([](Slot) { return true; })
    } -> std::same_as<Slot>;
  // Allocates the memory for so many objects.
  policy.Reserve(objects);
  { fixed.hash(slot) } -> std::same_as<uint64_t>;
  { fixed.size() } -> std::same_as<uint32_t>;
  { fixed.MemoryBytes() } -> std::same_as<size_t>;
  fixed.CheckInvariants();
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_EVICTION_POLICY_H_
