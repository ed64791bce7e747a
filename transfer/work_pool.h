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

// The threads that encode, decode, verify and build shard maps, so that actors
// and RPC loops do not. WorkQueue decides which task is next. Owns its threads;
// the destructor runs the queued tasks, then joins the threads. Thread-safe.
//
// The users of the pool bound its queue. A retrieve has at most one task per
// chunk of this node and one per layer of a chunk that comes from a peer. A
// store has one per layer that its gateway lets it encode at a time.
class WorkPool {
 public:
  using Task = absl::AnyInvocable<void()>;

  // `meters` records how long tasks wait for a thread; null: no record.
  // REQUIRES: threads >= 1.
  explicit WorkPool(int threads, Meters* meters = nullptr);
  ~WorkPool();
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  void Post(const WorkOrder& order, Task task);
  // Blocks until no task is queued or running. Tasks that tasks post count too.
  void Drain();
  int threads() const { return static_cast<int>(threads_.size()); }
  // A new id for WorkOrder::requester.
  RequesterId NextRequester();

 private:
  // A task that records its wait and then runs `task`.
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
