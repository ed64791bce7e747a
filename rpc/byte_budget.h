#ifndef KDN_RPC_BYTE_BUDGET_H_
#define KDN_RPC_BYTE_BUDGET_H_

#include <kj/async.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>

#include "absl/status/statusor.h"
#include "kv/work_class.h"
#include "rpc/event_loop.h"
#include "transfer/admission_gate.h"

namespace kdn::rpc {

// A budget of bytes whose grants are promises on a loop thread. An
// AdmissionGate decides which request is next; requesters that wait take turns.
// Loop thread only, except for used() and limit(); owned by shared_ptrs.
class ByteBudget : public std::enable_shared_from_this<ByteBudget> {
 public:
  using Pass = transfer::AdmissionGate::Pass;
  static std::shared_ptr<ByteBudget> Create(EventLoop& loop, uint64_t limit);

  // The amount at once, or null.
  Pass TryTake(uint64_t bytes) {
    return gate_->TryTake(bytes, WorkClass::kRead);
  }
  // RESOURCE_EXHAUSTED when `bytes` is more than the whole budget, or when too
  // many requests wait. Dropping the promise withdraws the request.
  kj::Promise<absl::StatusOr<Pass>> Acquire(uint64_t bytes,
                                            RequesterId requester);
  // The number of requests that wait. Loop thread only.
  size_t waiting() const { return waiters_.size(); }
  // Whether a request of another requester waits. Loop thread only.
  bool AnotherWaits(RequesterId requester) const;
  uint64_t used() const { return gate_->used(); }
  uint64_t limit() const { return gate_->budget(); }

 private:
  using Result = absl::StatusOr<Pass>;
  struct Waiter {
    AdmissionId admission;
    RequesterId requester;
    kj::Own<kj::PromiseFulfiller<Result>> fulfiller;
  };
  ByteBudget(uint64_t limit, std::shared_ptr<LoopInbox> inbox)
      : gate_(transfer::AdmissionGate::Create(limit)),
        inbox_(std::move(inbox)) {}
  void OnAnswer(uint64_t id, Result pass);
  void GiveUp(uint64_t id);

  const std::shared_ptr<transfer::AdmissionGate> gate_;
  const std::shared_ptr<LoopInbox> inbox_;
  std::unordered_map<uint64_t, Waiter> waiters_;
  uint64_t next_waiter_ = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BYTE_BUDGET_H_
