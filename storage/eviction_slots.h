#ifndef KDN_STORAGE_EVICTION_SLOTS_H_
#define KDN_STORAGE_EVICTION_SLOTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kv/check.h"
#include "kv/ids.h"

namespace kdn::storage {

// The place of one object in a slab: 4 bytes instead of a pointer's 8.
using Slot = StrongInt<struct SlotTag, uint32_t>;
inline constexpr Slot kNoSlot(UINT32_MAX);

// Nodes in one array. A slot names a node. The slots of removed nodes are used
// again, the latest first. `Node` has the members `Slot before` and `Slot
// after`, which link the nodes of a SlotList and the free nodes here.
//
// Invariant: the `before` of a free node is the node itself.
template <typename Node>
class SlotSlab {
 public:
  Slot Add(const Node& node) {
    ++used_;
    if (free_ == kNoSlot) {
      KDN_CHECK(nodes_.size() < kNoSlot.value(), "slots have 32 bits");
      nodes_.push_back(node);
      return Slot(static_cast<uint32_t>(nodes_.size() - 1));
    }
    const Slot slot = free_;
    free_ = nodes_[slot.value()].after;
    nodes_[slot.value()] = node;
    return slot;
  }
  // REQUIRES: the slot is in use, and in no list.
  void Remove(Slot slot) {
    KDN_DCHECK(InUse(slot), "a slot is freed once");
    nodes_[slot.value()].before = slot;
    nodes_[slot.value()].after = free_;
    free_ = slot;
    --used_;
  }

  Node& operator[](Slot slot) {
    KDN_DCHECK(InUse(slot), "no object has the slot");
    return nodes_[slot.value()];
  }
  const Node& operator[](Slot slot) const {
    KDN_DCHECK(InUse(slot), "no object has the slot");
    return nodes_[slot.value()];
  }
  bool InUse(Slot slot) const {
    return slot.value() < nodes_.size() && nodes_[slot.value()].before != slot;
  }

  void Reserve(uint32_t nodes) { nodes_.reserve(nodes); }
  uint32_t size() const { return used_; }
  size_t MemoryBytes() const { return nodes_.capacity() * sizeof(Node); }

 private:
  std::vector<Node> nodes_;
  Slot free_ = kNoSlot;
  uint32_t used_ = 0;
};

// A doubly linked list of nodes of a slab. The list does not own the nodes. A
// node is in at most one list.
class SlotList {
 public:
  Slot front() const { return front_; }
  uint32_t size() const { return size_; }

  template <typename Node>
  void PushBack(SlotSlab<Node>& slab, Slot slot) {
    slab[slot].before = back_;
    slab[slot].after = kNoSlot;
    (back_ == kNoSlot ? front_ : slab[back_].after) = slot;
    back_ = slot;
    ++size_;
  }

  // REQUIRES: the node is in this list.
  template <typename Node>
  void Remove(SlotSlab<Node>& slab, Slot slot) {
    const Slot before = slab[slot].before;
    const Slot after = slab[slot].after;
    (before == kNoSlot ? front_ : slab[before].after) = after;
    (after == kNoSlot ? back_ : slab[after].before) = before;
    --size_;
  }

  template <typename Node>
  void MoveToBack(SlotSlab<Node>& slab, Slot slot) {
    if (slot == back_) return;
    Remove(slab, slot);
    PushBack(slab, slot);
  }

  // Calls `visit(node)` for each node, first to last.
  template <typename Node, typename Visit>
  void CheckInvariants(const SlotSlab<Node>& slab, Visit visit) const {
    uint32_t seen = 0;
    Slot before = kNoSlot;
    for (Slot at = front_; at != kNoSlot; at = slab[at].after) {
      KDN_CHECK(slab.InUse(at), "a list leads to a free slot");
      KDN_CHECK(slab[at].before == before, "the two links differ");
      KDN_CHECK(++seen <= size_, "a list is longer than its size");
      visit(slab[at]);
      before = at;
    }
    KDN_CHECK(seen == size_ && back_ == before, "a list lost its end");
  }

 private:
  Slot front_ = kNoSlot;
  Slot back_ = kNoSlot;
  uint32_t size_ = 0;
};

// A table from 64-bit hashes to slots: open addressing with linear probing, 4
// bytes per cell, at most three of four cells in use. The table does not keep
// the hashes: `hash_of(slot)` gives the hash of a slot that is in the table.
class SlotIndex {
 public:
  // kNoSlot when no slot has the hash.
  template <typename HashOf>
  Slot Find(uint64_t hash, HashOf hash_of) const {
    if (cells_.empty()) return kNoSlot;
    for (size_t at = HomeOf(hash);; at = Next(at)) {
      if (cells_[at] == kNoSlot || hash_of(cells_[at]) == hash) {
        return cells_[at];
      }
    }
  }

  // REQUIRES: the slot is not in the table.
  template <typename HashOf>
  void Insert(Slot slot, HashOf hash_of) {
    if ((size_ + 1) * 4 > cells_.size() * 3) Rehash(size_ + 1, hash_of);
    ++size_;
    Place(slot, hash_of(slot));
  }

  // REQUIRES: the slot is in the table.
  template <typename HashOf>
  void Erase(Slot slot, HashOf hash_of) {
    size_t hole = HomeOf(hash_of(slot));
    while (cells_[hole] != slot) {
      KDN_CHECK(cells_[hole] != kNoSlot,
                "only a slot in the table can be erased");
      hole = Next(hole);
    }
    // A probe ends at the first empty cell. So each later slot that is found by
    // a probe through the hole moves into the hole.
    for (size_t at = Next(hole); cells_[at] != kNoSlot; at = Next(at)) {
      if (!IsBetween(hole, HomeOf(hash_of(cells_[at])), at)) {
        cells_[hole] = cells_[at];
        hole = at;
      }
    }
    cells_[hole] = kNoSlot;
    --size_;
  }

  // After this call, so many slots fit without another allocation.
  template <typename HashOf>
  void Reserve(uint32_t slots, HashOf hash_of) {
    if (CellsFor(slots) > cells_.size()) Resize(CellsFor(slots), hash_of);
  }
  void Clear() {
    cells_.assign(cells_.size(), kNoSlot);
    size_ = 0;
  }
  uint32_t size() const { return static_cast<uint32_t>(size_); }
  size_t MemoryBytes() const { return cells_.capacity() * sizeof(Slot); }

 private:
  static size_t CellsFor(size_t slots) { return slots * 4 / 3 + 2; }
  // The cell where the probe for a hash begins: the hash scaled to the table.
  size_t HomeOf(uint64_t hash) const {
    return static_cast<size_t>(
        (static_cast<unsigned __int128>(hash) * cells_.size()) >> 64);
  }
  size_t Next(size_t at) const { return at + 1 == cells_.size() ? 0 : at + 1; }
  // Whether `home` lies behind `hole` and not behind `at`, on the way from
  // `hole` around the end of the table.
  static bool IsBetween(size_t hole, size_t home, size_t at) {
    if (hole <= at) return hole < home && home <= at;
    return hole < home || home <= at;
  }
  void Place(Slot slot, uint64_t hash) {
    size_t at = HomeOf(hash);
    while (cells_[at] != kNoSlot) at = Next(at);
    cells_[at] = slot;
  }
  template <typename HashOf>
  void Rehash(size_t slots, HashOf hash_of) {
    Resize(CellsFor(slots + slots / 2), hash_of);
  }
  template <typename HashOf>
  void Resize(size_t cells, HashOf hash_of) {
    std::vector<Slot> before(cells, kNoSlot);
    before.swap(cells_);
    for (const Slot slot : before) {
      if (slot != kNoSlot) Place(slot, hash_of(slot));
    }
  }

  std::vector<Slot> cells_;
  size_t size_ = 0;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_EVICTION_SLOTS_H_
