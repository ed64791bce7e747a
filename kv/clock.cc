#include "kv/clock.h"

#include "absl/time/clock.h"

namespace kdn {

absl::Time RealClock::Now() const { return absl::Now(); }

}  // namespace kdn
