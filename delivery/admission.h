#ifndef KDN_DELIVERY_ADMISSION_H_
#define KDN_DELIVERY_ADMISSION_H_

#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"

namespace kdn::delivery {

// Shares out a fixed amount of memory, first come first served, so that many
// requests at once wait for room instead of failing. Invariant: living passes
// are never of more than the limit. Thread-safe; passes may outlive it.
class Admission {
 public:
  // A share. Given back when the last copy goes.
  using Pass = std::shared_ptr<const void>;

  explicit Admission(uint64_t limit);
  // `admitted` runs once, here or on a thread that gives a share back, when
  // `bytes` are free; more than the limit counts as all of it. One that never
  // is goes unanswered with the Admission.
  void Request(uint64_t bytes, absl::AnyInvocable<void(Pass)> admitted);
  uint64_t limit() const;
  uint64_t used() const;

 private:
  struct State;
  static void Serve(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_ADMISSION_H_
