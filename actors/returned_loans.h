#ifndef KDN_ACTORS_RETURNED_LOANS_H_
#define KDN_ACTORS_RETURNED_LOANS_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "storage/partition.h"

namespace kdn::actors {

// The loans that readers have returned, until the storage actor reports them to
// its partition. Readers return loans on any thread. Thread-safe.
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

// Returns a pointer to the same block. When the last copy of the pointer goes,
// it first drops its share of `block` and then calls `gone()`.
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
