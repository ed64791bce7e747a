#include "transfer/work_pool.h"

#include <utility>

#include "kv/check.h"
#include "kv/clock.h"

namespace kdn::transfer {

WorkPool::WorkPool(int threads, Meters* meters) : meters_(meters) {
  KDN_CHECK(threads >= 1, "a pool without threads never works");
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkPool::~WorkPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

WorkPool::Task WorkPool::Timed(Task task) const {
  if (meters_ == nullptr) return task;
  return [task = std::move(task), meters = meters_,
          posted = SteadyNow()]() mutable {
    meters->Record("pool_wait_us", SteadyNow() - posted);
    task();
  };
}

void WorkPool::Post(const WorkOrder& order, Task task) {
  task = Timed(std::move(task));
  absl::MutexLock lock(&mutex_);
  queue_.Post(order, std::move(task));
}

void WorkPool::Drain() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &WorkPool::IsIdle));
}

RequesterId WorkPool::NextRequester() {
  absl::MutexLock lock(&mutex_);
  return RequesterId(++requesters_);
}

void WorkPool::Run() {
  for (;;) {
    Task task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &WorkPool::HasWork));
      if (queue_.empty()) return;
      task = queue_.TakeNext();
      ++running_;
    }
    task();
    task = nullptr;  // destroyed before it counts as done
    absl::MutexLock lock(&mutex_);
    --running_;
  }
}

}  // namespace kdn::transfer
