#ifndef KDN_BENCH_SHAPED_LINK_H_
#define KDN_BENCH_SHAPED_LINK_H_

#include "absl/status/status.h"

// Links slower than loopback: a network namespace of its own, whose loopback
// device tc shapes.
namespace kdn::bench {

// The calling thread, and the threads and processes that it starts from now on,
// get a network of their own: loopback and nothing else. It has no name and
// ends with the last of them. Who is not root gets a user namespace with it,
// which Linux allows while a process has one thread only. PERMISSION_DENIED
// when the system does not: nothing has changed then.
absl::Status EnterOwnNetwork();

// How fast that loopback is from now on, both ways together; 0: as fast as it
// can be. After an idle time the first 10 ms' worth, at least 128 KiB, pass
// at once. UNAVAILABLE when tc or the kernel's token bucket is missing.
// REQUIRES: EnterOwnNetwork.
absl::Status ShapeLoopback(double bytes_per_second);

}  // namespace kdn::bench

#endif  // KDN_BENCH_SHAPED_LINK_H_
