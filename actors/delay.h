#ifndef KDN_ACTORS_DELAY_H_
#define KDN_ACTORS_DELAY_H_

#include <algorithm>
#include <chrono>

#include "absl/time/time.h"

namespace kdn::actors {

// CAF adds a delay to its clock, in nanoseconds: more than this could overflow.
inline constexpr absl::Duration kDelayMax = absl::Hours(24 * 365);

// The time from `now` until `at` as CAF takes it: rounded up, so that `at` has
// come when the delay is over; zero when `at` has come already; never more than
// kDelayMax.
inline std::chrono::microseconds DelayUntil(absl::Time at, absl::Time now) {
  const absl::Duration left =
      std::clamp(at - now, absl::ZeroDuration(), kDelayMax);
  return std::chrono::microseconds(
      absl::ToInt64Microseconds(absl::Ceil(left, absl::Microseconds(1))));
}

// The same for a request. At least 1 us, because CAF takes a timeout of zero
// for an unlimited one.
inline std::chrono::microseconds TimeoutUntil(absl::Time at, absl::Time now) {
  return std::max(DelayUntil(at, now), std::chrono::microseconds(1));
}

}  // namespace kdn::actors

#endif  // KDN_ACTORS_DELAY_H_
