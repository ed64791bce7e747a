#ifndef KDN_BENCH_SHAPED_LINK_H_
#define KDN_BENCH_SHAPED_LINK_H_

#include "absl/status/status.h"

// Links slower than loopback: a private network namespace whose loopback device
// is shaped by tc.
namespace kdn::bench {

// Moves the calling thread into a new network namespace, which has a loopback
// device only. Threads and processes that this thread starts later are in the
// namespace too; it vanishes with the last of them. A user who is not root gets
// a user namespace as well, which Linux allows only while the process has one
// thread. PERMISSION_DENIED when the system does not allow it; then nothing has
// changed.
absl::Status EnterOwnNetwork();

// Limits the rate of that loopback device, both directions together. 0 removes
// the limit. After idle time a burst passes at once: 10 ms at the rate, at
// least 128 KiB. UNAVAILABLE when tc or the kernel's token bucket is missing.
// REQUIRES: EnterOwnNetwork has succeeded.
absl::Status ShapeLoopback(double bytes_per_second);

}  // namespace kdn::bench

#endif  // KDN_BENCH_SHAPED_LINK_H_
