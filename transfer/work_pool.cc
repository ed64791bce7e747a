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

void WorkPool::Post(WorkOrder order, Task task) {
  absl::MutexLock lock(&mutex_);
  queue_.push(Entry{order, next_sequence_++, std::move(task)});
}

void WorkPool::Drain() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &WorkPool::IsIdle));
}

uint64_t WorkPool::NextRequest() {
  absl::MutexLock lock(&mutex_);
  return ++next_request_;
}

void WorkPool::Run() {
  for (;;) {
    Task task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &WorkPool::HasWork));
      if (queue_.empty()) return;
      task = std::move(queue_.top().task);
      queue_.pop();
      ++running_;
    }
    task();
    task = nullptr;  // what it held goes before it counts as done
    absl::MutexLock lock(&mutex_);
    --running_;
  }
}

}  // namespace kdn::transfer
