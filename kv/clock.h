#ifndef KDN_KV_CLOCK_H_
#define KDN_KV_CLOCK_H_

#include "absl/time/time.h"

namespace kdn {

// The present on the monotonic clock of this machine, as an absl::Time that
// counts from an arbitrary moment. Nobody sets this clock, so durations
// measured with it are real. Times of one process compare with each other, not
// with those of another machine or of an earlier boot.
absl::Time SteadyNow();

// The one seam to time. Pure classes take times as arguments; only drivers
// (actors, RPC, simulator) hold a Clock.
class Clock {
 public:
  virtual ~Clock() = default;
  // As SteadyNow. Deadlines, leases, TTLs and back-off count on this clock.
  virtual absl::Time Now() const = 0;
  // The time of day, which an operator may set: for logs, for names, and for
  // what has to be read after a restart.
  virtual absl::Time WallNow() const = 0;
};

class RealClock final : public Clock {
 public:
  absl::Time Now() const override;
  absl::Time WallNow() const override;
};

}  // namespace kdn

#endif  // KDN_KV_CLOCK_H_
