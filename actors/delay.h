#ifndef KDN_ACTORS_DELAY_H_
#define KDN_ACTORS_DELAY_H_

#include <algorithm>
#include <chrono>

#include "absl/time/time.h"

namespace kdn::actors {

// The time from `now` until `at` as CAF takes it: rounded up, so that `at` has
// come when the delay is over; zero when it has come already.
inline std::chrono::microseconds DelayUntil(absl::Time at, absl::Time now) {
  const absl::Duration left = std::max(at - now, absl::ZeroDuration());
  return std::chrono::microseconds(
      absl::ToInt64Microseconds(absl::Ceil(left, absl::Microseconds(1))));
}

// The same for a request, which CAF lets wait for ever when given nothing.
inline std::chrono::microseconds TimeoutUntil(absl::Time at, absl::Time now) {
  return std::max(DelayUntil(at, now), std::chrono::microseconds(1));
}

}  // namespace kdn::actors

#endif  // KDN_ACTORS_DELAY_H_
