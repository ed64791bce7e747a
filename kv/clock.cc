#include "kv/clock.h"

#include <chrono>

#include "absl/time/clock.h"

namespace kdn {

absl::Time SteadyNow() {
  return absl::UnixEpoch() +
         absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

absl::Time RealClock::Now() const { return SteadyNow(); }

absl::Time RealClock::WallNow() const { return absl::Now(); }

}  // namespace kdn
