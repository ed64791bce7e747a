#ifndef KDN_STORAGE_ARENA_H_
#define KDN_STORAGE_ARENA_H_

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kv/host_memory.h"
#include "storage/block_source.h"

namespace kdn::storage {

// A fixed budget of memory, cut into blocks of whole pages. Thread-safe.
//
// A block fits when enough pages of the budget are free, wherever they lie: an
// eviction that frees enough bytes suffices. For that, the arena has more
// address space than budget. The `base` is as large as the budget, and its
// pages stay with the process, because the next block uses them again. If no
// free run of the base is long enough, the block lies in the `spare`. The spare
// holds pages only for its blocks, and the arena gives as many free pages of
// the base back to the system: these are the cold pages.
//
// Both parts take a block from their shortest free run that is long enough, and
// merge free runs that touch.
//
// Invariants: used_bytes() is at most the budget; in each part, the used bytes
// plus all free runs are its size, and no two free runs touch; the cold pages
// are free pages of the base, and at least as many as the spare's used pages.
class Arena final : public BlockSource {
 public:
  // RESOURCE_EXHAUSTED when the system refuses the address space. The system
  // provides a page when it is first touched.
  static absl::StatusOr<std::shared_ptr<Arena>> Create(size_t budget_bytes);

  absl::StatusOr<std::shared_ptr<ArenaBlock>> Allocate(size_t bytes) override;
  size_t budget_bytes() const override { return budget_; }
  size_t used_bytes() const override;
  // Of these, the bytes in the spare. For tests, as the next function.
  size_t spare_used_bytes() const;
  // The bytes for which the system has provided pages.
  size_t resident_bytes() const;
  void CheckInvariants() const override;

 private:
  // A set of runs of bytes that do not touch.
  class Runs {
   public:
    // Adds the run. Merges it with the runs that it touches.
    void Add(size_t offset, size_t length);
    // Takes these bytes out. Answers how many of them were in the set.
    size_t Take(size_t offset, size_t length);
    // Where the shortest run of at least this length begins.
    std::optional<size_t> Shortest(size_t length) const;
    size_t bytes() const { return bytes_; }
    const std::map<size_t, size_t>& by_offset() const { return by_offset_; }
    void CheckInvariants() const;

   private:
    void Insert(size_t offset, size_t length);
    void Erase(std::map<size_t, size_t>::iterator run);
    std::map<size_t, size_t> by_offset_;             // offset -> length
    std::set<std::pair<size_t, size_t>> by_length_;  // (length, offset)
    size_t bytes_ = 0;
  };

  Arena(PrivateMemory memory, size_t budget);
  void TakeBack(std::byte* data, size_t bytes) override;
  // Gives free pages of the base back to the system until there are enough
  // cold ones.
  void Chill() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives the pages back to the system. Their bytes are zero afterwards.
  void Release(size_t offset, size_t length) const;
  size_t SpareUsed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return memory_.size() - budget_ - spare_free_.bytes();
  }
  size_t Used() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return budget_ - base_free_.bytes() + SpareUsed();
  }

  const PrivateMemory memory_;
  const size_t budget_;  // and the size of the base
  mutable absl::Mutex mutex_;
  Runs base_free_ ABSL_GUARDED_BY(mutex_);
  Runs spare_free_ ABSL_GUARDED_BY(mutex_);
  Runs cold_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_ARENA_H_
