#include "transfer/work_pool.h"

#include <utility>

#include "kv/check.h"

namespace kdn::transfer {

WorkPool::WorkPool(int threads) {
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

void WorkPool::Post(const WorkOrder& order, Task task) {
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
    task = nullptr;  // what it held goes before it counts as done
    absl::MutexLock lock(&mutex_);
    --running_;
  }
}

}  // namespace kdn::transfer
