#ifndef KDN_TRANSFER_ADMISSION_H_
#define KDN_TRANSFER_ADMISSION_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kdn::transfer {

// Shares out a fixed amount of memory, first come first served, so that many
// requests at once wait for room instead of failing. Invariant: living passes
// are never of more than the limit, and no more than `waiters_max` wait. Has no
// clock. Thread-safe; passes may outlive it.
class Admission {
 public:
  // A share. Given back when the last copy goes.
  using Pass = std::shared_ptr<const void>;
  using Answer = absl::AnyInvocable<void(absl::StatusOr<Pass>)>;
  static constexpr size_t kWaitersMax = 1024;

  explicit Admission(uint64_t limit, size_t waiters_max = kWaitersMax);
  // `answer` runs once, here or on a thread that gives a share back or calls
  // Expire, when `bytes` are free; more than the limit counts as all of it.
  // RESOURCE_EXHAUSTED when too many wait already. One that waits to the end
  // goes unanswered with the Admission.
  void Request(uint64_t bytes, absl::Time deadline, Answer answer);
  // Who still waits at its deadline is answered DEADLINE_EXCEEDED; those behind
  // move up. Call every now and then.
  void Expire(absl::Time now);
  uint64_t limit() const;
  uint64_t used() const;

 private:
  struct State;
  static void Serve(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_ADMISSION_H_
