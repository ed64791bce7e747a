#ifndef KDN_KV_CLOCK_H_
#define KDN_KV_CLOCK_H_

#include "absl/time/time.h"

namespace kdn {

// The present time on the monotonic clock of this machine, as an absl::Time
// that counts from an arbitrary moment. Nobody can set this clock, so durations
// measured with it are real. Times of different machines, or from before a
// reboot, cannot be compared.
absl::Time SteadyNow();

// The interface to time, which tests replace. Pure classes take times as
// arguments; only drivers (actors, RPC, simulator) hold a Clock.
class Clock {
 public:
  virtual ~Clock() = default;
  // The monotonic time, like SteadyNow. Deadlines, leases, TTLs and back-off
  // use this clock.
  virtual absl::Time Now() const = 0;
  // The time of day, which an operator may set. For logs, for names, and for
  // times that are read after a restart.
  virtual absl::Time WallNow() const = 0;
};

class RealClock final : public Clock {
 public:
  absl::Time Now() const override;
  absl::Time WallNow() const override;
};

}  // namespace kdn

#endif  // KDN_KV_CLOCK_H_
