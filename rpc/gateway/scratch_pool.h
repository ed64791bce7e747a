#ifndef KDN_RPC_GATEWAY_SCRATCH_POOL_H_
#define KDN_RPC_GATEWAY_SCRATCH_POOL_H_

#include <kj/async.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "rpc/byte_budget.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// Memory that a chunk is decoded into before it is sent; never initialised.
// Free it on any thread.
class Scratch {
 public:
  Scratch(ByteBudget::Hold hold, size_t bytes)
      : hold_(std::move(hold)),
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
  ByteBudget::Hold hold_;
  std::byte* data_;
  size_t size_;
};

// Hands out scratch within a budget; who finds none waits, first come first
// served. Loop thread only; lives behind a shared_ptr.
class ScratchPool : public std::enable_shared_from_this<ScratchPool> {
 public:
  static std::shared_ptr<ScratchPool> Create(EventLoop& loop, uint64_t limit);

  // RESOURCE_EXHAUSTED when `bytes` is more than the whole budget.
  kj::Promise<absl::StatusOr<std::shared_ptr<Scratch>>> Acquire(size_t bytes);
  uint64_t used() const { return budget_->used(); }
  uint64_t limit() const { return budget_->limit(); }

 private:
  struct Waiter {
    size_t bytes;
    kj::Own<kj::PromiseFulfiller<absl::StatusOr<std::shared_ptr<Scratch>>>>
        fulfiller;
  };
  ScratchPool(uint64_t limit, std::shared_ptr<LoopInbox> inbox)
      : budget_(ByteBudget::Create(limit)), inbox_(std::move(inbox)) {}
  std::shared_ptr<Scratch> TryAcquire(size_t bytes);
  void ServeWaiters();

  std::shared_ptr<ByteBudget> budget_;
  std::shared_ptr<LoopInbox> inbox_;
  std::deque<Waiter> waiters_;
  // Read by whoever gives back, so that a wake-up is sent only when one waits.
  std::shared_ptr<std::atomic<int>> waiting_ =
      std::make_shared<std::atomic<int>>(0);
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_SCRATCH_POOL_H_
