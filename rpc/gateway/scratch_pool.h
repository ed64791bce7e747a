#ifndef KDN_RPC_GATEWAY_SCRATCH_POOL_H_
#define KDN_RPC_GATEWAY_SCRATCH_POOL_H_

#include <kj/async.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "rpc/byte_budget.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// Memory into which chunks are decoded before they are sent. It is not
// initialised. Any thread may destroy it.
class Scratch {
 public:
  Scratch(ByteBudget::Pass pass, size_t bytes)
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
  ByteBudget::Pass pass_;
  std::byte* data_;
  size_t size_;
};

// Gives out scratch memory within a budget. Loop thread only; owned by
// shared_ptrs.
class ScratchPool {
 public:
  static std::shared_ptr<ScratchPool> Create(EventLoop& loop, uint64_t limit) {
    return std::make_shared<ScratchPool>(ByteBudget::Create(loop, limit));
  }
  explicit ScratchPool(std::shared_ptr<ByteBudget> budget)
      : budget_(std::move(budget)) {}

  // RESOURCE_EXHAUSTED when `bytes` is more than the whole budget, or when too
  // many requests wait. Dropping the promise withdraws the request.
  kj::Promise<absl::StatusOr<std::shared_ptr<Scratch>>> Acquire(
      size_t bytes, RequesterId requester);
  // Whether a request of another requester waits.
  bool AnotherWaits(RequesterId requester) const {
    return budget_->AnotherWaits(requester);
  }
  uint64_t used() const { return budget_->used(); }
  uint64_t limit() const { return budget_->limit(); }

 private:
  const std::shared_ptr<ByteBudget> budget_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_SCRATCH_POOL_H_
