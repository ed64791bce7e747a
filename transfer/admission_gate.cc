#include "transfer/admission_gate.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace kdn::transfer {

struct AdmissionGate::State {
  explicit State(const Admission::Options& options) : admission(options) {}

  Answer TakeAnswer(AdmissionId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    auto node = answers.extract(id);
    return std::move(node.mapped());
  }

  absl::Mutex mutex;
  Admission admission ABSL_GUARDED_BY(mutex);
  absl::flat_hash_map<AdmissionId, Answer> answers ABSL_GUARDED_BY(mutex);
  uint64_t next_id ABSL_GUARDED_BY(mutex) = 1;
  // A thread is in Serve and will call TakeGrant again. So an answer that drops
  // its pass at once does not recurse into the next answer.
  bool serving ABSL_GUARDED_BY(mutex) = false;
};

AdmissionGate::AdmissionGate(const Admission::Options& options)
    : state_(std::make_shared<State>(options)) {}

std::shared_ptr<AdmissionGate> AdmissionGate::Create(uint64_t budget) {
  return std::make_shared<AdmissionGate>(
      Admission::Options{.budget = budget, .shares = {}});
}

AdmissionId AdmissionGate::Request(const Ask& ask, Answer answer) {
  AdmissionId id;
  absl::Status status;
  {
    absl::MutexLock lock(&state_->mutex);
    id = AdmissionId(state_->next_id++);
    status = state_->admission.Request(
        {id, ask.amount, ask.work_class, ask.requester, ask.deadline});
    if (status.ok()) state_->answers.emplace(id, std::move(answer));
  }
  if (status.ok()) {
    Serve(state_);
  } else {
    answer(status);  // NOLINT(bugprone-use-after-move): moved only if OK
  }
  return id;
}

AdmissionGate::Answer AdmissionGate::TakeOut(AdmissionId id) {
  absl::MutexLock lock(&state_->mutex);
  if (!state_->admission.Withdraw(id)) return nullptr;
  return state_->TakeAnswer(id);
}

void AdmissionGate::Withdraw(AdmissionId id) {
  const Answer unused = TakeOut(id);
  if (unused != nullptr) Serve(state_);
}

void AdmissionGate::Refuse(AdmissionId id, const absl::Status& why) {
  Answer answer = TakeOut(id);
  if (answer == nullptr) return;
  answer(why);
  Serve(state_);
}

AdmissionGate::Pass AdmissionGate::TryTake(uint64_t amount,
                                           WorkClass work_class) {
  AdmissionId id;
  {
    absl::MutexLock lock(&state_->mutex);
    id = AdmissionId(state_->next_id++);
    if (!state_->admission.TryTake(
            {id, amount, work_class, RequesterId(), absl::InfiniteFuture()})) {
      return nullptr;
    }
  }
  return PassOf(state_, id);
}

void AdmissionGate::Expire(absl::Time now) {
  std::vector<std::pair<uint64_t, Answer>> late;
  {
    absl::MutexLock lock(&state_->mutex);
    for (const AdmissionRequest& request : state_->admission.TakeExpired(now)) {
      late.emplace_back(request.amount, state_->TakeAnswer(request.id));
    }
  }
  for (auto& [amount, answer] : late) {
    answer(absl::DeadlineExceededError(absl::StrCat(
        "a request for ", amount, " was not granted before its deadline")));
  }
  // An expired request may have been the first of its line and too large for
  // the free amount: the next one may fit.
  Serve(state_);
}

AdmissionGate::Pass AdmissionGate::PassOf(const std::shared_ptr<State>& state,
                                          AdmissionId id) {
  // The pointer is weak, so that waiting requests are destroyed with the gate
  // and not with the last pass.
  return Pass(static_cast<const void*>(state.get()),
              [weak = std::weak_ptr<State>(state), id](const void*) {
                const std::shared_ptr<State> alive = weak.lock();
                if (alive == nullptr) return;
                {
                  absl::MutexLock lock(&alive->mutex);
                  alive->admission.GiveBack(id);
                }
                Serve(alive);
              });
}

void AdmissionGate::Serve(const std::shared_ptr<State>& state) {
  for (bool first = true;; first = false) {
    std::optional<AdmissionRequest> grant;
    Answer answer;
    {
      absl::MutexLock lock(&state->mutex);
      if (first && state->serving) return;
      grant = state->admission.TakeGrant();
      state->serving = grant.has_value();
      if (!grant) return;
      answer = state->TakeAnswer(grant->id);
    }
    answer(PassOf(state, grant->id));
  }
}

uint64_t AdmissionGate::budget() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->admission.budget();
}

uint64_t AdmissionGate::guaranteed(WorkClass work_class) const {
  absl::MutexLock lock(&state_->mutex);
  return state_->admission.guaranteed(work_class);
}

uint64_t AdmissionGate::most_of(WorkClass work_class) const {
  absl::MutexLock lock(&state_->mutex);
  return state_->admission.most_of(work_class);
}

uint64_t AdmissionGate::used() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->admission.used();
}

size_t AdmissionGate::waiting() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->admission.waiting();
}

}  // namespace kdn::transfer
