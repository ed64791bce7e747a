#ifndef KDN_KV_CLOCK_H_
#define KDN_KV_CLOCK_H_

#include "absl/time/time.h"

namespace kdn {

// The one seam to time. Pure classes take times as arguments; only drivers
// (actors, RPC, simulator) hold a Clock.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

class RealClock final : public Clock {
 public:
  absl::Time Now() const override;
};

}  // namespace kdn

#endif  // KDN_KV_CLOCK_H_
