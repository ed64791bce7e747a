#ifndef KDN_PLACEMENT_JOIN_H_
#define KDN_PLACEMENT_JOIN_H_

#include <cstddef>

#include "absl/status/status.h"
#include "kv/ids.h"
#include "placement/member.h"

namespace kdn::placement {

// What a node says about itself when it answers a join.
struct JoinClaim {
  NodeId id;
  size_t partitions = 0;  // storage actors
};

// Judges the node that answered at the addresses of `expected`: OK when it is
// that member. Otherwise FAILED_PRECONDITION with the reason, for the log.
absl::Status JudgeAnswer(const MemberSpec& expected, const JoinClaim& claim);

// Judges a node that asks to join `self` under the name `asker`: OK when the
// node may join. Otherwise FAILED_PRECONDITION with the reason, for the logs of
// both nodes. A node that is not on the member list may join, because its own
// list can be newer.
absl::Status JudgeAsker(const NodeId& self, const NodeId& asker);

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_JOIN_H_
