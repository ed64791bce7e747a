#ifndef KDN_STORAGE_EVICTION_S3FIFO_H_
#define KDN_STORAGE_EVICTION_S3FIFO_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "storage/eviction_ghosts.h"
#include "storage/eviction_policy.h"

namespace kdn::storage {

// S3-FIFO: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for
// cache eviction", SOSP 2023, section 4. A new object enters a small queue of a
// tenth of the capacity. An object that was read twice there moves on to the
// main queue; any other object leaves, and its hash is kept as a ghost. An
// object that comes back while it is a ghost enters the main queue at once. The
// main queue gives an object another round for each of its last three reads.
//
// A read sets a counter and moves nothing. Objects go in the order in which
// they came, except for those that have earned another round. That suits a disk
// of append-only segments.
class S3FifoPolicy {
 public:
  explicit S3FifoPolicy(uint64_t capacity)
      : main_max_(capacity - capacity / 10) {}

  Slot Insert(const Cached& object);
  void Access(Slot slot) {
    Node& node = slab_[slot];
    if (node.reads < kReadsMax) ++node.reads;
  }
  void Evict(Slot slot);
  void Erase(Slot slot);
  template <typename MayGo>
  Slot Victim(MayGo may_go) {
    const bool main_first =
        main_.weight > main_max_ || small_.order.size() == 0;
    Slot victim = main_first ? VictimOfMain(may_go) : VictimOfSmall(may_go);
    if (victim != kNoSlot) return victim;
    victim = main_first ? VictimOfSmall(may_go) : VictimOfMain(may_go);
    return victim;
  }

  void Reserve(uint32_t objects);
  uint64_t hash(Slot slot) const { return slab_[slot].hash; }
  uint32_t size() const { return slab_.size(); }
  uint32_t ghosts() const { return ghosts_.size(); }
  size_t MemoryBytes() const {
    return slab_.MemoryBytes() + ghosts_.MemoryBytes();
  }
  void CheckInvariants() const;

 private:
  static constexpr uint8_t kReadsMax = 3;
  // Reads that move an object from the small queue to the main queue.
  static constexpr uint8_t kReadsToStay = 2;

  struct Node {
    uint64_t hash;
    Slot before;
    Slot after;
    uint32_t weight;
    uint8_t reads;
    bool in_main;
  };
  static_assert(sizeof(Node) == 24);

  struct Queue {
    SlotList order;  // oldest first
    uint64_t weight = 0;
  };

  // Passes over objects that `may_go` refuses, and does not move them.
  template <typename MayGo>
  Slot VictimOfSmall(MayGo& may_go) {
    for (Slot at = small_.order.front(); at != kNoSlot;) {
      const Slot next = slab_[at].after;
      if (may_go(at)) {
        if (slab_[at].reads < kReadsToStay) return at;
        MoveToMain(at);
      }
      at = next;
    }
    return kNoSlot;
  }
  // Ends, because an object loses one read in each round.
  template <typename MayGo>
  Slot VictimOfMain(MayGo& may_go) {
    for (Slot at = main_.order.front(); at != kNoSlot;) {
      Slot next = slab_[at].after;
      if (may_go(at)) {
        if (slab_[at].reads == 0) return at;
        --slab_[at].reads;
        main_.order.MoveToBack(slab_, at);
        if (next == kNoSlot) next = at;  // the only one left comes again
      }
      at = next;
    }
    return kNoSlot;
  }
  void MoveToMain(Slot slot);
  void Push(Slot slot, bool in_main);
  void Pop(Slot slot);
  // The number of objects of mean weight that the main queue has room for.
  uint32_t GhostsMax() const;

  const uint64_t main_max_;
  SlotSlab<Node> slab_;
  Queue small_;
  Queue main_;
  GhostQueue ghosts_;
};
static_assert(EvictionPolicy<S3FifoPolicy>);

}  // namespace kdn::storage

#endif  // KDN_STORAGE_EVICTION_S3FIFO_H_
