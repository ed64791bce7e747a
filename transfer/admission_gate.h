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

// The shell around kdn::Admission for threads: adds a lock, callbacks for
// waiting requests, and passes that give their amount back when they are
// destroyed. kdn::Admission decides the order. Has no clock. Thread-safe;
// passes may outlive the gate.
class AdmissionGate {
 public:
  // A granted amount. The amount is given back when the last copy is destroyed.
  using Pass = std::shared_ptr<const void>;
  using Answer = absl::AnyInvocable<void(absl::StatusOr<Pass>)>;
  struct Ask {
    uint64_t amount = 0;
    WorkClass work_class;  // no default, so that no caller forgets it
    RequesterId requester{};
    absl::Time deadline = absl::InfiniteFuture();
  };

  explicit AdmissionGate(const Admission::Options& options);
  // A gate without guaranteed parts: every class may take the whole budget.
  static std::shared_ptr<AdmissionGate> Create(uint64_t budget);

  // `answer` runs once: in this call, or on a thread that gives a pass back,
  // withdraws or refuses a request, or calls Expire. It gets RESOURCE_EXHAUSTED
  // at once when too many requests wait or the amount is more than
  // most_of(class). It gets DEADLINE_EXCEEDED when Expire finds that the
  // deadline has passed. A request that still waits when the gate is destroyed
  // is not answered.
  AdmissionId Request(const Ask& ask, Answer answer);
  // Takes a waiting request out of the line and drops its answer uncalled. Does
  // nothing for a request that is answered or being answered.
  void Withdraw(AdmissionId id);
  // The same, but calls the answer, with `why`.
  void Refuse(AdmissionId id, const absl::Status& why);
  // Takes the amount, or returns null when the amount is not free at once.
  Pass TryTake(uint64_t amount, WorkClass work_class);
  // Answers every request whose deadline has come. Call it every now and then.
  void Expire(absl::Time now);

  uint64_t budget() const;
  uint64_t guaranteed(WorkClass work_class) const;
  // The most that one class may hold.
  uint64_t most_of(WorkClass work_class) const;
  uint64_t used() const;
  // The number of waiting requests.
  size_t waiting() const;

 private:
  struct State;
  // Takes a waiting request out of the line and returns its answer; null when
  // the request does not wait.
  Answer TakeOut(AdmissionId id);
  static Pass PassOf(const std::shared_ptr<State>& state, AdmissionId id);
  static void Serve(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_ADMISSION_GATE_H_
