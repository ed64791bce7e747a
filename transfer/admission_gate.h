#ifndef KDN_TRANSFER_ADMISSION_GATE_H_
#define KDN_TRANSFER_ADMISSION_GATE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kv/admission.h"
#include "kv/work_class.h"

namespace kdn::transfer {

// The shell around kdn::Admission for threads: a lock, callbacks for those who
// wait, and passes that give their amount back by themselves. kdn::Admission
// says who is served when. Has no clock. Thread-safe; passes may outlive the
// gate.
class AdmissionGate {
 public:
  // A granted amount. Given back when the last copy goes.
  using Pass = std::shared_ptr<const void>;
  using Answer = absl::AnyInvocable<void(absl::StatusOr<Pass>)>;
  struct Ask {
    uint64_t amount = 0;
    WorkClass work_class = WorkClass::kRead;
    RequesterId requester{};
    absl::Time deadline = absl::InfiniteFuture();
  };

  explicit AdmissionGate(const Admission::Options& options);
  // One budget for all classes.
  static std::shared_ptr<AdmissionGate> Create(uint64_t budget);

  // `answer` runs once: in this call, or on a thread that gives a pass back or
  // calls Expire. RESOURCE_EXHAUSTED at once when too many requests wait or the
  // amount is more than most_of(class), DEADLINE_EXCEEDED when Expire finds the
  // deadline passed. A request that waits until the gate goes is not answered.
  AdmissionId Request(const Ask& ask, Answer answer);
  // Drops the answer of a request that waits, uncalled. Does nothing for a
  // request that is answered or being answered.
  void Withdraw(AdmissionId id);
  // Null when the amount cannot be had at once.
  Pass TryTake(uint64_t amount, WorkClass work_class = WorkClass::kRead);
  // Answers every request whose deadline has come. Call it every now and then.
  void Expire(absl::Time now);

  uint64_t budget() const;
  uint64_t guaranteed(WorkClass work_class) const;
  // The most that one class may hold.
  uint64_t most_of(WorkClass work_class) const;
  uint64_t used() const;
  // Requests that wait.
  size_t waiting() const;

 private:
  struct State;
  static Pass PassOf(const std::shared_ptr<State>& state, AdmissionId id);
  static void Serve(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_ADMISSION_GATE_H_
