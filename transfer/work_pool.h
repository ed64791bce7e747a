#ifndef KDN_TRANSFER_WORK_POOL_H_
#define KDN_TRANSFER_WORK_POOL_H_

#include <compare>
#include <cstdint>
#include <queue>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace kdn::transfer {

// What runs first: requests in order of arrival, and inside one request lower
// layers first, so that an engine can compute on layer 0 of all its chunks
// while layer 1 is still being decoded.
struct WorkOrder {
  uint64_t request = 0;
  int layer = 0;
  auto operator<=>(const WorkOrder&) const = default;
};

// The threads that encode, decode and verify, so that actors and RPC loops
// never do. Owns its threads; the destructor runs what is queued, then joins.
// Thread-safe. The queue is bounded by what its users admit: a retrieve keeps
// at most one task per chunk that is here and one per layer of a chunk that
// comes from a peer in it, a store one per layer that its gateway lets it have
// under way.
class WorkPool {
 public:
  using Task = absl::AnyInvocable<void()>;

  // REQUIRES: threads >= 1.
  explicit WorkPool(int threads);
  ~WorkPool();
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  void Post(WorkOrder order, Task task);
  // Blocks until nothing is queued or running, what tasks post included.
  void Drain();
  // A fresh WorkOrder::request.
  uint64_t NextRequest();

 private:
  struct Entry {
    WorkOrder order;
    uint64_t sequence = 0;
    // The queue hands out const references; the task is moved out just before
    // its entry is popped.
    mutable Task task;
    bool operator<(const Entry& other) const {  // the largest runs first
      return std::pair(other.order, other.sequence) <
             std::pair(order, sequence);
    }
  };
  void Run();
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return queue_.empty() && running_ == 0;
  }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !queue_.empty();
  }

  absl::Mutex mutex_;
  std::priority_queue<Entry> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_request_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_WORK_POOL_H_
