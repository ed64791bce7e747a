#ifndef KDN_KV_WAITING_LINE_H_
#define KDN_KV_WAITING_LINE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kv/ids.h"
#include "kv/work_class.h"

namespace kdn {

// Names a request to the caller that made it. A caller uses each id once.
using AdmissionId = StrongInt<struct AdmissionIdTag, uint64_t>;

// A request for an amount of a scarce resource: bytes of memory, connections.
struct AdmissionRequest {
  AdmissionId id{};
  uint64_t amount = 0;
  WorkClass work_class = WorkClass::kRead;
  RequesterId requester{};
  // From this time on the request is of no use.
  absl::Time deadline = absl::InfiniteFuture();
};

// The requests that wait, and the order in which they are served. Each class
// has a line of its own. In a line the requesters take turns, one request a
// turn; the requests of one requester are served in the order of their arrival.
// The first request of a line stays first until it leaves: a request never
// overtakes another one because it is smaller.
//
// Representation: per class a list of requesters in the order of their turns,
// per requester a list of requests. Every operation takes logarithmic time.
// Invariant: no line holds more than `waiting_max` requests. Pure.
class WaitingLine {
 public:
  // `waiting_max` counts per class, so that a full line of one class refuses no
  // request of another class.
  explicit WaitingLine(size_t waiting_max) : waiting_max_(waiting_max) {}

  // RESOURCE_EXHAUSTED when the line of the class is full.
  // REQUIRES: no request of this id waits.
  absl::Status Add(const AdmissionRequest& request);
  // The request of this class that is served next; null when no request waits.
  // Valid until the line changes.
  const AdmissionRequest* First(WorkClass work_class) const;
  // Serves the first request: takes it out and ends its requester's turn.
  // REQUIRES: First(work_class) is not null.
  AdmissionRequest TakeFirst(WorkClass work_class);
  // Takes out a request without serving it. False when no such request waits.
  bool Remove(AdmissionId id);
  // Takes out every request whose deadline is `now` or earlier: the earliest
  // deadline first, equal deadlines in the order of arrival.
  std::vector<AdmissionRequest> TakeExpired(absl::Time now);

  size_t size(WorkClass work_class) const { return lines_[work_class].size; }
  size_t size() const { return places_.size(); }
  bool empty() const { return places_.empty(); }

  void CheckInvariants() const;

 private:
  struct Requester {
    RequesterId id;
    std::list<AdmissionRequest> waiting;  // never empty
  };
  using Turns = std::list<Requester>;
  struct ClassLine {
    Turns turns;
    absl::flat_hash_map<RequesterId, Turns::iterator> by_id;
    size_t size = 0;
  };
  struct Place {
    Turns::iterator requester;
    std::list<AdmissionRequest>::iterator request;
    uint64_t arrival = 0;
  };

  // Takes a request out. Its requester keeps its turn while it has other
  // requests, and leaves with its last request.
  AdmissionRequest Extract(AdmissionId id);

  const size_t waiting_max_;
  PerClass<ClassLine> lines_;
  absl::flat_hash_map<AdmissionId, Place> places_;
  // By deadline, then by arrival.
  std::map<std::pair<absl::Time, uint64_t>, AdmissionId> deadlines_;
  uint64_t arrivals_ = 0;
};

}  // namespace kdn

#endif  // KDN_KV_WAITING_LINE_H_
