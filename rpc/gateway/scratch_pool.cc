#include "rpc/gateway/scratch_pool.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace kdn::rpc {

std::shared_ptr<ScratchPool> ScratchPool::Create(EventLoop& loop,
                                                 uint64_t limit) {
  std::shared_ptr<ScratchPool> pool(new ScratchPool(limit, loop.inbox()));
  pool->budget_->OnGivenBack([inbox = loop.inbox(), waiting = pool->waiting_,
                              weak = std::weak_ptr<ScratchPool>(pool)] {
    if (waiting->load() == 0) return;
    inbox->Post([weak] {
      if (auto alive = weak.lock()) alive->ServeWaiters();
    });
  });
  return pool;
}

std::shared_ptr<Scratch> ScratchPool::TryAcquire(size_t bytes) {
  std::optional<ByteBudget::Hold> hold = budget_->TryTake(bytes);
  if (!hold) return nullptr;
  return std::make_shared<Scratch>(*std::move(hold), bytes);
}

kj::Promise<absl::StatusOr<std::shared_ptr<Scratch>>> ScratchPool::Acquire(
    size_t bytes) {
  using Result = absl::StatusOr<std::shared_ptr<Scratch>>;
  if (bytes > budget_->limit()) {
    return Result(absl::ResourceExhaustedError(absl::StrCat(
        "a chunk of ", bytes, " bytes is more than the gateway's ",
        budget_->limit(), " bytes for inline delivery: use shared memory")));
  }
  if (waiters_.empty()) {
    if (auto scratch = TryAcquire(bytes)) return Result(std::move(scratch));
  }
  auto paf = kj::newPromiseAndFulfiller<Result>();
  waiters_.push_back(Waiter{bytes, kj::mv(paf.fulfiller)});
  waiting_->store(static_cast<int>(waiters_.size()));
  // What was given back just before the count was raised sent no wake-up.
  ServeWaiters();
  // A large one that gives up makes room for the small ones behind it.
  return paf.promise.attach(
      kj::defer([inbox = inbox_, weak = weak_from_this()] {
        inbox->Post([weak] {
          if (auto alive = weak.lock()) alive->ServeWaiters();
        });
      }));
}

void ScratchPool::ServeWaiters() {
  while (!waiters_.empty()) {
    Waiter& first = waiters_.front();
    if (first.fulfiller->isWaiting()) {
      auto scratch = TryAcquire(first.bytes);
      if (scratch == nullptr) break;
      first.fulfiller->fulfill(std::move(scratch));
    }
    waiters_.pop_front();
  }
  waiting_->store(static_cast<int>(waiters_.size()));
}

}  // namespace kdn::rpc
