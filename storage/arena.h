#ifndef KDN_STORAGE_ARENA_H_
#define KDN_STORAGE_ARENA_H_

#include <cstddef>
#include <map>
#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kv/host_memory.h"
#include "storage/block_source.h"

namespace kdn::storage {

// A fixed budget of memory, cut into blocks of whole pages. A block is taken
// from the shortest free run that is long enough; free runs that touch are
// merged. Thread-safe. Invariant: used_bytes() plus all free runs is the
// budget, and no two free runs touch.
class Arena final : public BlockSource {
 public:
  // RESOURCE_EXHAUSTED when the system refuses the address space. The system
  // provides a page when it is first touched.
  static absl::StatusOr<std::shared_ptr<Arena>> Create(size_t budget_bytes);

  absl::StatusOr<std::shared_ptr<ArenaBlock>> Allocate(size_t bytes) override;
  size_t budget_bytes() const override { return memory_.size(); }
  size_t used_bytes() const override;
  void CheckInvariants() const override;

 private:
  explicit Arena(PrivateMemory memory);
  void TakeBack(std::byte* data, size_t bytes) override;

  PrivateMemory memory_;
  mutable absl::Mutex mutex_;
  // Free runs by offset (to merge) and by (length, offset) (to choose).
  std::map<size_t, size_t> free_by_offset_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<size_t, size_t>> free_by_length_ ABSL_GUARDED_BY(mutex_);
  size_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_ARENA_H_
