#include "rpc/byte_budget.h"

#include <algorithm>

namespace kdn::rpc {

std::shared_ptr<ByteBudget> ByteBudget::Create(EventLoop& loop,
                                               uint64_t limit) {
  return std::shared_ptr<ByteBudget>(new ByteBudget(limit, loop.inbox()));
}

kj::Promise<ByteBudget::Result> ByteBudget::Acquire(uint64_t bytes,
                                                    RequesterId requester) {
  if (Pass pass = TryTake(bytes)) return Result(std::move(pass));
  const uint64_t id = next_waiter_++;
  auto paf = kj::newPromiseAndFulfiller<Result>();
  Waiter& waiter = waiters_[id];
  waiter.fulfiller = kj::mv(paf.fulfiller);
  waiter.requester = requester;
  waiter.admission = gate_->Request(
      {.amount = bytes, .work_class = WorkClass::kRead, .requester = requester},
      [inbox = inbox_, weak = weak_from_this(), id](Result pass) {
        inbox->Post([weak, id, pass = std::move(pass)]() mutable {
          if (auto budget = weak.lock()) budget->OnAnswer(id, std::move(pass));
        });
      });
  return paf.promise.attach(kj::defer([weak = weak_from_this(), id] {
    if (auto budget = weak.lock()) budget->GiveUp(id);
  }));
}

bool ByteBudget::AnotherWaits(RequesterId requester) const {
  return std::any_of(waiters_.begin(), waiters_.end(),
                     [requester](const auto& waiter) {
                       return waiter.second.requester != requester;
                     });
}

void ByteBudget::OnAnswer(uint64_t id, Result pass) {
  auto found = waiters_.extract(id);
  if (found.empty()) return;  // the request was withdrawn
  found.mapped().fulfiller->fulfill(std::move(pass));
}

void ByteBudget::GiveUp(uint64_t id) {
  const auto found = waiters_.extract(id);
  if (!found.empty()) gate_->Withdraw(found.mapped().admission);
}

}  // namespace kdn::rpc
