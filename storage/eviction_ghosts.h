#ifndef KDN_STORAGE_EVICTION_GHOSTS_H_
#define KDN_STORAGE_EVICTION_GHOSTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "storage/eviction_slots.h"

namespace kdn::storage {

// The hashes of the objects that were evicted last ("ghosts"), oldest first: a
// ring of hashes and a table that finds them. Taking a hash out leaves a hole
// in the ring; holes do not count as ghosts.
//
// After Reserve(n), n ghosts take at most 16 bytes each: 10 bytes in the ring,
// which has a quarter more cells than ghosts, and 6 bytes in the table.
class GhostQueue {
 public:
  // Remembers the hash as the newest ghost. Then forgets the oldest ghosts
  // until `ghosts_max` are left.
  void Remember(uint64_t hash, uint32_t ghosts_max);
  // Forgets the hash. False when the hash was not remembered.
  bool Take(uint64_t hash);

  void Reserve(uint32_t ghosts);
  uint32_t size() const { return index_.size(); }
  size_t MemoryBytes() const {
    return ring_.capacity() * sizeof(uint64_t) + index_.MemoryBytes();
  }
  void CheckInvariants() const;

 private:
  auto HashAt() const {
    return [this](Slot slot) { return ring_[slot.value()]; };
  }
  // The cell `offset` cells behind the oldest.
  Slot CellAt(uint32_t offset) const {
    const uint64_t cell = uint64_t{oldest_} + offset;
    return Slot(static_cast<uint32_t>(
        cell < ring_.size() ? cell : cell - ring_.size()));
  }
  // Whether the cell holds a ghost, and not a hole.
  bool IsLive(Slot cell) const {
    return index_.Find(ring_[cell.value()], HashAt()) == cell;
  }
  void DropOldestCell();
  // Closes the holes and gives the ring `cells` cells.
  void Rebuild(size_t cells);

  std::vector<uint64_t> ring_;
  SlotIndex index_;      // finds the cells with a ghost
  uint32_t oldest_ = 0;  // the ring's first used cell
  uint32_t used_ = 0;    // used cells, holes included
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_EVICTION_GHOSTS_H_
