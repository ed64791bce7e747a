#include "delivery/admission.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kv/check.h"

namespace kdn::delivery {

struct Admission::State {
  struct Waiter {
    uint64_t bytes;
    absl::AnyInvocable<void(Pass)> admitted;
  };
  explicit State(uint64_t limit_in) : limit(limit_in) {}

  const uint64_t limit;
  absl::Mutex mutex;
  uint64_t used ABSL_GUARDED_BY(mutex) = 0;
  std::deque<Waiter> waiters ABSL_GUARDED_BY(mutex);
  // Some thread is in Serve and will look again: a waiter that drops its pass
  // at once does not recurse into the next one.
  bool serving ABSL_GUARDED_BY(mutex) = false;
};

Admission::Admission(uint64_t limit) : state_(std::make_shared<State>(limit)) {}

void Admission::Request(uint64_t bytes,
                        absl::AnyInvocable<void(Pass)> admitted) {
  {
    absl::MutexLock lock(&state_->mutex);
    state_->waiters.push_back(
        {std::min(bytes, state_->limit), std::move(admitted)});
  }
  Serve(state_);
}

void Admission::Serve(const std::shared_ptr<State>& state) {
  for (bool first = true;; first = false) {
    State::Waiter next;
    {
      absl::MutexLock lock(&state->mutex);
      if (first && state->serving) return;
      state->serving =
          !state->waiters.empty() &&
          state->waiters.front().bytes <= state->limit - state->used;
      if (!state->serving) return;
      next = std::move(state->waiters.front());
      state->waiters.pop_front();
      state->used += next.bytes;
    }
    // Weak: what still waits goes with the Admission, not with the last pass.
    next.admitted(Pass(
        static_cast<const void*>(state.get()),
        [weak = std::weak_ptr<State>(state), bytes = next.bytes](const void*) {
          const std::shared_ptr<State> alive = weak.lock();
          if (alive == nullptr) return;
          {
            absl::MutexLock lock(&alive->mutex);
            KDN_CHECK(bytes <= alive->used,
                      "more is given back than was taken");
            alive->used -= bytes;
          }
          Serve(alive);
        }));
  }
}

uint64_t Admission::limit() const { return state_->limit; }

uint64_t Admission::used() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->used;
}

}  // namespace kdn::delivery
