#include "kv/cancellation.h"

#include <utility>

namespace kdn {

void Cancellation::Cancel() {
  std::vector<std::function<void()>> listeners;
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(cancelled_, true)) return;
    listeners = std::exchange(listeners_, {});
  }
  for (const std::function<void()>& listener : listeners) listener();
}

bool Cancellation::cancelled() const {
  absl::ReaderMutexLock lock(&mutex_);
  return cancelled_;
}

void Cancellation::OnCancel(std::function<void()> listener) {
  {
    absl::MutexLock lock(&mutex_);
    if (!cancelled_) {
      listeners_.push_back(std::move(listener));
      return;
    }
  }
  listener();
}

}  // namespace kdn
