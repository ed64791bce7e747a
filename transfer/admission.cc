#include "transfer/admission.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kv/check.h"

namespace kdn::transfer {

struct Admission::State {
  struct Waiter {
    uint64_t bytes;
    absl::Time deadline;
    Answer answer;
  };
  State(uint64_t limit_in, size_t waiters_max_in)
      : limit(limit_in), waiters_max(waiters_max_in) {}

  const uint64_t limit;
  const size_t waiters_max;
  absl::Mutex mutex;
  uint64_t used ABSL_GUARDED_BY(mutex) = 0;
  std::deque<Waiter> waiters ABSL_GUARDED_BY(mutex);
  // Some thread is in Serve and will look again: a waiter that drops its pass
  // at once does not recurse into the next one.
  bool serving ABSL_GUARDED_BY(mutex) = false;
};

Admission::Admission(uint64_t limit, size_t waiters_max)
    : state_(std::make_shared<State>(limit, waiters_max)) {}

void Admission::Request(uint64_t bytes, absl::Time deadline, Answer answer) {
  bool refused = false;
  {
    absl::MutexLock lock(&state_->mutex);
    refused = state_->waiters.size() >= state_->waiters_max;
    if (!refused) {
      state_->waiters.push_back(
          {std::min(bytes, state_->limit), deadline, std::move(answer)});
    }
  }
  if (refused) {
    return answer(absl::ResourceExhaustedError(absl::StrCat(
        state_->waiters_max, " requests wait for passing memory already")));
  }
  Serve(state_);
}

void Admission::Expire(absl::Time now) {
  std::deque<State::Waiter> late;
  {
    absl::MutexLock lock(&state_->mutex);
    const auto first_late = std::stable_partition(
        state_->waiters.begin(), state_->waiters.end(),
        [now](const State::Waiter& waiter) { return waiter.deadline > now; });
    late.assign(std::make_move_iterator(first_late),
                std::make_move_iterator(state_->waiters.end()));
    state_->waiters.erase(first_late, state_->waiters.end());
  }
  for (State::Waiter& waiter : late) {
    waiter.answer(absl::DeadlineExceededError(absl::StrCat(
        "no ", waiter.bytes, " bytes of passing memory came free in time")));
  }
  // One that was in front may have been too large for what is free.
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
    next.answer(Pass(
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

}  // namespace kdn::transfer
