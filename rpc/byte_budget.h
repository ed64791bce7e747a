#ifndef KDN_RPC_BYTE_BUDGET_H_
#define KDN_RPC_BYTE_BUDGET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kdn::rpc {

// An amount of something (bytes, slots) that may be held at once. Invariant:
// used() is the sum of the living Holds and never above limit(). Thread-safe;
// Holds keep it alive.
class ByteBudget : public std::enable_shared_from_this<ByteBudget> {
 public:
  // A share, given back when destroyed. Movable.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept { *this = std::move(other); }
    Hold& operator=(Hold&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(amount_, other.amount_);
      return *this;
    }
    ~Hold() {
      if (budget_ != nullptr) budget_->GiveBack(amount_);
    }
    uint64_t amount() const { return amount_; }

   private:
    friend class ByteBudget;
    Hold(std::shared_ptr<ByteBudget> budget, uint64_t amount)
        : budget_(std::move(budget)), amount_(amount) {}
    std::shared_ptr<ByteBudget> budget_;
    uint64_t amount_ = 0;
  };

  static std::shared_ptr<ByteBudget> Create(uint64_t limit) {
    return std::shared_ptr<ByteBudget>(new ByteBudget(limit));
  }

  // Nullopt when that much is not free.
  std::optional<Hold> TryTake(uint64_t amount);
  // Called, on whatever thread gives back, after something was given back.
  void OnGivenBack(std::function<void()> notify);

  uint64_t used() const;
  uint64_t limit() const { return limit_; }

 private:
  explicit ByteBudget(uint64_t limit) : limit_(limit) {}
  void GiveBack(uint64_t amount);

  const uint64_t limit_;
  mutable absl::Mutex mutex_;
  uint64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  std::function<void()> notify_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BYTE_BUDGET_H_
