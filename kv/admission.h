#ifndef KDN_KV_ADMISSION_H_
#define KDN_KV_ADMISSION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kv/waiting_line.h"
#include "kv/work_class.h"

namespace kdn {

// Decides who may hold how much of a fixed budget (bytes, slots), and in which
// order waiting requests get their part. The caller tells what happens; the
// class answers with grants. It has no lock, no clock and no callback.
//
// Classes. Each class has a guaranteed part of the budget that no other class
// ever holds, so that a class is never blocked by another one. What nobody is
// guaranteed is common: a class holds of it what exceeds its guaranteed part.
//
// Order. In a class the requesters take turns (see WaitingLine), and the first
// request waits until its amount is free. No smaller request of its class
// overtakes it, so a large request is not starved by small ones.
//
// The common part. The first requests of the classes compete for it. The class
// that comes earlier in kWorkClasses goes first, until `patience` of the common
// part has been granted past a waiting request of another class. Such a request
// is due. Due requests go first, in the order in which they became due, and the
// first one keeps what is free of the common part until its amount is there.
// Hence at most `patience` and three times the common part are granted past a
// waiting first request.
//
// Invariant: the living grants together never exceed the budget. Pure.
class Admission {
 public:
  struct Share {
    uint64_t guaranteed = 0;
    uint64_t patience = 0;
  };
  struct Options {
    uint64_t budget = 0;
    PerClass<Share> shares{};
    size_t waiting_max = 1024;  // per class
  };

  // REQUIRES: the guaranteed parts together are no more than the budget.
  explicit Admission(const Options& options);

  // Puts a request into the line. Ask TakeGrant afterwards.
  // RESOURCE_EXHAUSTED when the line of the class is full, or when the amount
  // is more than most_of(class).
  absl::Status Request(const AdmissionRequest& request);
  // The next request that gets its amount, nullopt when the others have to
  // wait. Call it after every other call until it answers nullopt.
  std::optional<AdmissionRequest> TakeGrant();
  // Grants the amount at once, or answers false and changes nothing. False also
  // when a request that waits would go first. The deadline counts for nothing.
  bool TryTake(const AdmissionRequest& request);

  // The holder of a grant gives all of it back.
  // REQUIRES: the grant was made and not yet given back.
  void GiveBack(AdmissionId id);
  // The holder of a grant keeps only `amount`.
  // REQUIRES: the grant is of at least that amount.
  void Reduce(AdmissionId id, uint64_t amount);
  // The maker of a waiting request wants nothing any more. False when the
  // request does not wait: it was granted, or it has left.
  bool Withdraw(AdmissionId id);
  // The requests that leave because their deadline has come: the earliest
  // deadline first.
  std::vector<AdmissionRequest> TakeExpired(absl::Time now);
  absl::Time next_deadline() const { return line_.next_deadline(); }

  uint64_t budget() const { return options_.budget; }
  // Of living grants.
  uint64_t used() const;
  uint64_t used(WorkClass work_class) const { return used_[work_class]; }
  uint64_t guaranteed(WorkClass work_class) const {
    return options_.shares[work_class].guaranteed;
  }
  // The most that one class may hold.
  uint64_t most_of(WorkClass work_class) const;
  size_t waiting() const { return line_.size(); }
  size_t waiting(WorkClass work_class) const { return line_.size(work_class); }

  void CheckInvariants() const;

 private:
  struct Grant {
    uint64_t amount = 0;
    WorkClass work_class = WorkClass::kRead;
  };
  // How long the first request of a class has waited for the common part.
  struct Wait {
    std::optional<AdmissionId> first;
    uint64_t passed = 0;     // granted past it of the common part
    uint64_t due_since = 0;  // a count; 0: not due
  };

  // What a further `amount` would take of the common part.
  uint64_t CommonPartOf(WorkClass work_class, uint64_t amount) const;
  bool HasRoomFor(WorkClass work_class, uint64_t amount) const;
  // Notes who is first in each line and which of them have become due.
  void Refresh();
  // The class whose first request is next to get of the common part.
  std::optional<WorkClass> FirstInCommon() const;
  AdmissionRequest GrantFirst(WorkClass work_class);
  void Hold(const AdmissionRequest& request);
  void Drop(WorkClass work_class, uint64_t amount);

  const Options options_;
  uint64_t common_ = 0;  // not guaranteed to any class
  WaitingLine line_;
  absl::flat_hash_map<AdmissionId, Grant> grants_;
  PerClass<uint64_t> used_;
  uint64_t common_used_ = 0;
  PerClass<Wait> waits_;
  uint64_t due_count_ = 0;
};

}  // namespace kdn

#endif  // KDN_KV_ADMISSION_H_
