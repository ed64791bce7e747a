#ifndef KDN_ACTORS_RETURNED_LOANS_H_
#define KDN_ACTORS_RETURNED_LOANS_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "storage/partition.h"

namespace kdn::actors {

// The loans that readers have returned and the storage actor has not yet told
// its partition of. Readers let go on any thread. Thread-safe.
class ReturnedLoans {
 public:
  void Add(const storage::Loan& loan) {
    absl::MutexLock lock(&mutex_);
    loans_.push_back(loan);
  }
  std::vector<storage::Loan> Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(loans_, {});
  }

 private:
  absl::Mutex mutex_;
  std::vector<storage::Loan> loans_ ABSL_GUARDED_BY(mutex_);
};

// The same block. When the last holder of the returned pointer lets go, the
// block is let go of first, and then `gone()` is called.
template <typename Block, typename Gone>
std::shared_ptr<Block> WhenGone(std::shared_ptr<Block> block, Gone gone) {
  Block* const raw = block.get();
  return std::shared_ptr<Block>(
      raw, [block = std::move(block), gone = std::move(gone)](Block*) mutable {
        block.reset();
        gone();
      });
}

}  // namespace kdn::actors

#endif  // KDN_ACTORS_RETURNED_LOANS_H_
