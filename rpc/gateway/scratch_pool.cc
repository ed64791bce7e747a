#include "rpc/gateway/scratch_pool.h"

#include "absl/strings/str_cat.h"

namespace kdn::rpc {

using transfer::AdmissionGate;

std::shared_ptr<ScratchPool> ScratchPool::Create(EventLoop& loop,
                                                 uint64_t limit) {
  return std::shared_ptr<ScratchPool>(new ScratchPool(limit, loop.inbox()));
}

kj::Promise<absl::StatusOr<std::shared_ptr<Scratch>>> ScratchPool::Acquire(
    size_t bytes, RequesterId requester) {
  if (bytes > gate_->budget()) {
    return Result(absl::ResourceExhaustedError(absl::StrCat(
        "a chunk of ", bytes, " bytes is more than the gateway's ",
        gate_->budget(), " bytes for inline delivery: use shared memory")));
  }
  if (AdmissionGate::Pass pass = gate_->TryTake(bytes, WorkClass::kRead)) {
    return Result(std::make_shared<Scratch>(std::move(pass), bytes));
  }
  return Wait(bytes, requester);
}

kj::Promise<ScratchPool::Result> ScratchPool::Wait(size_t bytes,
                                                   RequesterId requester) {
  const uint64_t id = next_waiter_++;
  auto paf = kj::newPromiseAndFulfiller<Result>();
  Waiter& waiter = waiters_[id];
  waiter.bytes = bytes;
  waiter.fulfiller = kj::mv(paf.fulfiller);
  waiter.admission = gate_->Request(
      {.amount = bytes, .work_class = WorkClass::kRead, .requester = requester},
      [inbox = inbox_, weak = weak_from_this(),
       id](absl::StatusOr<AdmissionGate::Pass> pass) {
        inbox->Post([weak, id, pass = std::move(pass)]() mutable {
          if (auto pool = weak.lock()) pool->OnAnswer(id, std::move(pass));
        });
      });
  return paf.promise.attach(kj::defer([weak = weak_from_this(), id] {
    if (auto pool = weak.lock()) pool->GiveUp(id);
  }));
}

void ScratchPool::OnAnswer(uint64_t id,
                           absl::StatusOr<AdmissionGate::Pass> pass) {
  auto found = waiters_.extract(id);
  if (found.empty()) return;  // the request was withdrawn
  Waiter& waiter = found.mapped();
  if (pass.ok()) {
    waiter.fulfiller->fulfill(
        std::make_shared<Scratch>(*std::move(pass), waiter.bytes));
  } else {
    waiter.fulfiller->fulfill(pass.status());
  }
}

void ScratchPool::GiveUp(uint64_t id) {
  const auto found = waiters_.extract(id);
  if (!found.empty()) gate_->Withdraw(found.mapped().admission);
}

}  // namespace kdn::rpc
