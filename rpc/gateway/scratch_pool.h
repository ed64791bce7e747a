#ifndef KDN_RPC_GATEWAY_SCRATCH_POOL_H_
#define KDN_RPC_GATEWAY_SCRATCH_POOL_H_

#include <kj/async.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <utility>

#include "absl/status/statusor.h"
#include "kv/work_class.h"
#include "rpc/event_loop.h"
#include "transfer/admission_gate.h"

namespace kdn::rpc {

// Memory into which chunks are decoded before they are sent. It is not
// initialised. Any thread may destroy it.
class Scratch {
 public:
  Scratch(transfer::AdmissionGate::Pass pass, size_t bytes)
      : pass_(std::move(pass)),
        data_(static_cast<std::byte*>(std::malloc(bytes))),
        size_(bytes) {
    KDN_CHECK(data_ != nullptr, "out of memory inside the scratch budget");
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  transfer::AdmissionGate::Pass pass_;
  std::byte* data_;
  size_t size_;
};

// Gives out scratch memory within a budget, as promises on a loop thread. An
// AdmissionGate decides which request is next; requesters that wait take turns.
// Loop thread only; owned by shared_ptrs.
class ScratchPool : public std::enable_shared_from_this<ScratchPool> {
 public:
  static std::shared_ptr<ScratchPool> Create(EventLoop& loop, uint64_t limit);

  // RESOURCE_EXHAUSTED when `bytes` is more than the whole budget, or when too
  // many requests wait. Dropping the promise withdraws the request.
  kj::Promise<absl::StatusOr<std::shared_ptr<Scratch>>> Acquire(
      size_t bytes, RequesterId requester);
  uint64_t used() const { return gate_->used(); }
  uint64_t limit() const { return gate_->budget(); }

 private:
  using Result = absl::StatusOr<std::shared_ptr<Scratch>>;
  struct Waiter {
    size_t bytes = 0;
    AdmissionId admission;
    kj::Own<kj::PromiseFulfiller<Result>> fulfiller;
  };
  ScratchPool(uint64_t limit, std::shared_ptr<LoopInbox> inbox)
      : gate_(transfer::AdmissionGate::Create(limit)),
        inbox_(std::move(inbox)) {}
  kj::Promise<Result> Wait(size_t bytes, RequesterId requester);
  void OnAnswer(uint64_t id,
                absl::StatusOr<transfer::AdmissionGate::Pass> pass);
  void GiveUp(uint64_t id);

  const std::shared_ptr<transfer::AdmissionGate> gate_;
  const std::shared_ptr<LoopInbox> inbox_;
  std::unordered_map<uint64_t, Waiter> waiters_;
  uint64_t next_waiter_ = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_SCRATCH_POOL_H_
