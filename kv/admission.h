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

// Divides a fixed budget (bytes, slots) between requests, and decides in which
// order waiting requests are granted. The caller reports events, and the class
// answers with grants. The class has no lock, no clock and no callback.
//
// Classes. Each work class has a guaranteed part of the budget, which no other
// class ever holds, so no class blocks another class. The rest of the budget is
// the common part. A class that holds more than its guaranteed part holds the
// excess from the common part.
//
// Order. In a class the requesters take turns (see WaitingLine), and the first
// request waits until its amount is free. No smaller request of its class
// overtakes it, so small requests do not starve a large request.
//
// The common part. The first requests of the classes compete for it. The class
// that comes earlier in kWorkClasses goes first, until `patience` of the common
// part has been granted past a waiting request of another class. Such a request
// is due. Due requests go first, in the order in which they became due. The
// first due request keeps the free rest of the common part until its amount is
// free. Hence at most `patience` plus three times the common part are granted
// past a waiting first request.
//
// Invariant: the living grants together never exceed the budget. Pure.
class Admission {
 public:
  // The share of one class.
  struct Share {
    uint64_t guaranteed = 0;  // no other class ever holds it
    uint64_t patience = 0;    // see "The common part"
  };
  struct Options {
    uint64_t budget = 0;
    PerClass<Share> shares{};
    size_t waiting_max = 1024;  // per class
  };

  // REQUIRES: the guaranteed parts together are no more than the budget.
  explicit Admission(const Options& options);

  // Puts a request into the line; call TakeGrant afterwards.
  // RESOURCE_EXHAUSTED when the line of the class is full, or when the amount
  // is more than most_of(class).
  absl::Status Request(const AdmissionRequest& request);
  // Grants the next request whose amount is free; nullopt when every request
  // has to wait. Call it after every other call, until it returns nullopt.
  std::optional<AdmissionRequest> TakeGrant();
  // Grants the amount at once, or returns false and changes nothing. Returns
  // false also when a waiting request would go first. Ignores the deadline.
  bool TryTake(const AdmissionRequest& request);

  // Gives a whole grant back.
  // REQUIRES: the grant was made and not yet given back.
  void GiveBack(AdmissionId id);
  // Takes a waiting request out of the line. False when the request does not
  // wait: it was granted, or it has left.
  bool Withdraw(AdmissionId id);
  // Takes the requests whose deadline is `now` or earlier out of the line: the
  // earliest deadline first.
  std::vector<AdmissionRequest> TakeExpired(absl::Time now);

  uint64_t budget() const { return options_.budget; }
  // The sum of the living grants.
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
    uint64_t passed = 0;     // amount of the common part granted past it
    uint64_t due_since = 0;  // value of due_count_ when it became due; 0: not
  };

  // How much a further `amount` would take from the common part.
  uint64_t CommonPartOf(WorkClass work_class, uint64_t amount) const;
  bool HasRoomFor(WorkClass work_class, uint64_t amount) const;
  // Notes the first request of each line and whether it has become due.
  void Refresh();
  // The class whose first request is served next from the common part.
  std::optional<WorkClass> FirstInCommon() const;
  AdmissionRequest GrantFirst(WorkClass work_class);
  void Hold(const AdmissionRequest& request);

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
