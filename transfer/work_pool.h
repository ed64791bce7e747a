#ifndef KDN_TRANSFER_WORK_POOL_H_
#define KDN_TRANSFER_WORK_POOL_H_

#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "kv/meters.h"
#include "transfer/work_queue.h"

namespace kdn::transfer {

// The threads that encode, decode and verify, so that actors and RPC loops
// never do. WorkQueue says which task is next. Owns its threads; the destructor
// runs what is queued, then joins.
// Thread-safe. The queue is bounded by what its users admit: a retrieve keeps
// at most one task per chunk that is here and one per layer of a chunk that
// comes from a peer in it, a store one per layer that its gateway lets it have
// under way.
class WorkPool {
 public:
  using Task = absl::AnyInvocable<void()>;

  // `meters` counts how long tasks wait for a thread; null: nothing is counted.
  // REQUIRES: threads >= 1.
  explicit WorkPool(int threads, Meters* meters = nullptr);
  ~WorkPool();
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  void Post(const WorkOrder& order, Task task);
  // Blocks until nothing is queued or running, what tasks post included.
  void Drain();
  // A fresh WorkOrder::requester.
  RequesterId NextRequester();

 private:
  // The task, and the count of its wait before it.
  Task Timed(Task task) const;
  void Run();
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return queue_.empty() && running_ == 0;
  }
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !queue_.empty();
  }

  Meters* const meters_;
  absl::Mutex mutex_;
  WorkQueue<Task> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t requesters_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_WORK_POOL_H_
