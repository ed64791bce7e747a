#ifndef KDN_RPC_CALL_DEADLINE_H_
#define KDN_RPC_CALL_DEADLINE_H_

#include <algorithm>

#include "absl/time/time.h"
#include "kv/clock.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// The beginning of a call and its two deadlines: the caller's, on the clock of
// the event loop, and the node's, on the node's clock. The node gets a little
// less time than the caller, so that its answer to a late call (usually a miss)
// arrives before the gateway gives up.
struct CallDeadline {
  kj::TimePoint at = kj::origin<kj::TimePoint>();  // the caller's deadline
  absl::Time of_node;                              // the node's deadline
  absl::Time begun;

  static CallDeadline After(absl::Duration timeout) {
    const absl::Duration margin =
        std::min(timeout / 10, absl::Milliseconds(20));
    const absl::Time now = SteadyNow();
    return CallDeadline{EventLoop::In(timeout), now + (timeout - margin), now};
  }
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_CALL_DEADLINE_H_
