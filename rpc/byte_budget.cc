#include "rpc/byte_budget.h"

#include <utility>

#include "kv/check.h"

namespace kdn::rpc {

std::optional<ByteBudget::Hold> ByteBudget::TryTake(uint64_t amount) {
  absl::MutexLock lock(&mutex_);
  KDN_DCHECK(used_ <= limit_, "a budget is overdrawn");
  if (amount > limit_ - used_) return std::nullopt;
  used_ += amount;
  return Hold(shared_from_this(), amount);
}

void ByteBudget::OnGivenBack(std::function<void()> notify) {
  absl::MutexLock lock(&mutex_);
  notify_ = std::move(notify);
}

uint64_t ByteBudget::used() const {
  absl::MutexLock lock(&mutex_);
  return used_;
}

void ByteBudget::GiveBack(uint64_t amount) {
  std::function<void()> notify;
  {
    absl::MutexLock lock(&mutex_);
    KDN_CHECK(amount <= used_, "more was given back than taken");
    used_ -= amount;
    notify = notify_;
  }
  if (notify) notify();
}

}  // namespace kdn::rpc
