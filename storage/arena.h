#ifndef KDN_STORAGE_ARENA_H_
#define KDN_STORAGE_ARENA_H_

#include <cstddef>
#include <map>
#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "kv/host_memory.h"

namespace kdn::storage {

class Arena;

// A block of an arena, whole pages, page-aligned (so O_DIRECT can use it as it
// is). Returns itself to the arena when destroyed. Not copyable.
class ArenaBlock {
 public:
  ~ArenaBlock();
  ArenaBlock(const ArenaBlock&) = delete;
  ArenaBlock& operator=(const ArenaBlock&) = delete;

  // The bytes asked for; capacity() is that rounded up to pages.
  absl::Span<std::byte> bytes() { return {data_, size_}; }
  absl::Span<const std::byte> bytes() const { return {data_, size_}; }
  absl::Span<std::byte> padded() { return {data_, capacity_}; }
  absl::Span<const std::byte> padded() const { return {data_, capacity_}; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  // Cuts the block to what was really written; the pages behind go back to the
  // arena. REQUIRES: size <= this->size().
  void ShrinkTo(size_t size);

 private:
  friend class Arena;
  ArenaBlock(std::shared_ptr<Arena> arena, std::byte* data, size_t size,
             size_t capacity);
  std::shared_ptr<Arena> arena_;
  std::byte* data_;
  size_t size_;
  size_t capacity_;
};

// A whole encoded object in memory. Shared by readers; the block goes back to
// the arena when the last lets go, so eviction never pulls bytes from under a
// reader.
using ObjectRef = std::shared_ptr<const ArenaBlock>;

// A fixed budget of memory, cut into blocks of whole pages: best fit over a
// free list that merges neighbours. Thread-safe. Invariant: used_bytes() plus
// the free blocks is the budget, no two free blocks touch.
class Arena : public std::enable_shared_from_this<Arena> {
 public:
  static constexpr size_t kPageBytes = 4096;

  // RESOURCE_EXHAUSTED when the system refuses the address space. Pages are
  // taken from the system on first touch only.
  static absl::StatusOr<std::shared_ptr<Arena>> Create(size_t budget_bytes);

  // RESOURCE_EXHAUSTED when no free run is long enough: evict and try again.
  // INVALID_ARGUMENT when `bytes` is 0 or can never fit.
  absl::StatusOr<std::shared_ptr<ArenaBlock>> Allocate(size_t bytes);

  size_t budget_bytes() const { return memory_.size(); }
  size_t used_bytes() const;
  void CheckInvariants() const;

 private:
  friend class ArenaBlock;
  explicit Arena(PrivateMemory memory);
  void Free(std::byte* data, size_t capacity);

  PrivateMemory memory_;
  mutable absl::Mutex mutex_;
  // Free runs by offset (to merge) and by (length, offset) (to choose).
  std::map<size_t, size_t> free_by_offset_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<size_t, size_t>> free_by_length_ ABSL_GUARDED_BY(mutex_);
  size_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_ARENA_H_
