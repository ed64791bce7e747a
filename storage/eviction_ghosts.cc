#include "storage/eviction_ghosts.h"

#include <algorithm>
#include <utility>

#include "kv/check.h"

namespace kdn::storage {

void GhostQueue::Remember(uint64_t hash, uint32_t ghosts_max) {
  Take(hash);
  if (used_ == ring_.size()) {
    // The ring grows unless closing the holes gives enough room.
    const bool many_holes = uint64_t{size()} * 5 <= ring_.size() * 4;
    Rebuild(many_holes && used_ > 0
                ? ring_.size()
                : std::max<size_t>(16, ring_.size() * 3 / 2));
  }
  const Slot cell = CellAt(used_++);
  ring_[cell.value()] = hash;
  index_.Insert(cell, HashAt());
  while (size() > ghosts_max) DropOldestCell();
}

bool GhostQueue::Take(uint64_t hash) {
  const Slot cell = index_.Find(hash, HashAt());
  if (cell == kNoSlot) return false;
  index_.Erase(cell, HashAt());
  return true;
}

void GhostQueue::Reserve(uint32_t ghosts) {
  const size_t cells = size_t{ghosts} + ghosts / 4 + 2;
  if (cells > ring_.size()) Rebuild(cells);
  index_.Reserve(ghosts + 1, HashAt());
}

void GhostQueue::DropOldestCell() {
  KDN_CHECK(used_ > 0, "a ghost lies in the ring");
  const Slot cell = CellAt(0);
  if (IsLive(cell)) index_.Erase(cell, HashAt());
  oldest_ = CellAt(1).value();
  --used_;
}

void GhostQueue::Rebuild(size_t cells) {
  std::vector<uint64_t> live;
  live.reserve(cells);
  for (uint32_t i = 0; i < used_; ++i) {
    if (IsLive(CellAt(i))) live.push_back(ring_[CellAt(i).value()]);
  }
  used_ = static_cast<uint32_t>(live.size());
  live.resize(cells);
  ring_ = std::move(live);
  oldest_ = 0;
  index_.Clear();
  for (uint32_t i = 0; i < used_; ++i) index_.Insert(Slot(i), HashAt());
}

void GhostQueue::CheckInvariants() const {
  uint32_t live = 0;
  for (uint32_t i = 0; i < used_; ++i) live += IsLive(CellAt(i)) ? 1 : 0;
  KDN_CHECK(live == size(), "a ghost lies outside the ring");
  KDN_CHECK(used_ <= ring_.size(), "the ring overlaps itself");
}

}  // namespace kdn::storage
