#ifndef KDN_DELIVERY_DEADLINES_H_
#define KDN_DELIVERY_DEADLINES_H_

#include <algorithm>

#include "absl/time/time.h"

namespace kdn::delivery {

// When a request with this deadline gives up on one node: halfway between `now`
// and the deadline, so that there is time left for another node. `now` when the
// deadline has passed.
inline absl::Time AttemptDeadline(absl::Time now, absl::Time deadline) {
  return now + std::max(deadline - now, absl::ZeroDuration()) / 2;
}

// An action: tell the session, with OnDeadline, when `at` has come.
struct AwaitDeadline {
  absl::Time at;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_DEADLINES_H_
