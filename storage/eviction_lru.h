#ifndef KDN_STORAGE_EVICTION_LRU_H_
#define KDN_STORAGE_EVICTION_LRU_H_

#include <cstddef>
#include <cstdint>

#include "storage/eviction_policy.h"

namespace kdn::storage {

// Least recently used. On KV prefix traces this order beats SIEVE, S3-FIFO and
// W-TinyLFU at most sizes, unlike on web traces.
//
// The owner may mark objects in the order in which they go (MarkNext).
// Invariant: the marked objects are the first ones of the order. So each mark
// takes constant time, and nobody has to walk past the objects that are marked.
class LruPolicy {
 public:
  // LRU orders its objects the same way at every capacity.
  explicit LruPolicy(uint64_t /*capacity*/) {}

  Slot Insert(const Cached& object) {
    const Slot slot = slab_.Add({object.hash, kNoSlot, kNoSlot});
    order_.PushBack(slab_, slot);
    if (unmarked_ == kNoSlot) unmarked_ = slot;
    return slot;
  }
  // The object is not marked afterwards.
  void Access(Slot slot) {
    PassMark(slot);
    order_.MoveToBack(slab_, slot);
    if (unmarked_ == kNoSlot) unmarked_ = slot;
  }
  void Evict(Slot slot) { Erase(slot); }
  void Erase(Slot slot) {
    PassMark(slot);
    order_.Remove(slab_, slot);
    slab_.Remove(slot);
  }
  template <typename MayGo>
  Slot Victim(MayGo may_go) const {
    Slot at = order_.front();
    while (at != kNoSlot && !may_go(at)) at = slab_[at].after;
    return at;
  }

  // Marks the first object that is not marked. kNoSlot: all are marked.
  Slot MarkNext() {
    const Slot next = unmarked_;
    if (next != kNoSlot) unmarked_ = slab_[next].after;
    return next;
  }

  void Reserve(uint32_t objects) { slab_.Reserve(objects); }
  uint64_t hash(Slot slot) const { return slab_[slot].hash; }
  uint32_t size() const { return slab_.size(); }
  size_t MemoryBytes() const { return slab_.MemoryBytes(); }
  void CheckInvariants() const {
    order_.CheckInvariants(slab_, [](const Node&) {});
    KDN_CHECK(order_.size() == slab_.size(), "an object has no place");
  }

 private:
  struct Node {
    uint64_t hash;
    Slot before;
    Slot after;
  };
  static_assert(sizeof(Node) == 16);

  // Call before the slot leaves its place in the order.
  void PassMark(Slot slot) {
    if (slot == unmarked_) unmarked_ = slab_[slot].after;
  }

  SlotSlab<Node> slab_;
  SlotList order_;           // least recently used first
  Slot unmarked_ = kNoSlot;  // the first that is not marked; kNoSlot: none
};
static_assert(EvictionPolicy<LruPolicy>);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_EVICTION_LRU_H_
