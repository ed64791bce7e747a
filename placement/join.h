#ifndef KDN_PLACEMENT_JOIN_H_
#define KDN_PLACEMENT_JOIN_H_

#include <cstddef>

#include "absl/status/status.h"
#include "kv/ids.h"
#include "placement/member.h"

namespace kdn::placement {

// What a node says of itself when it answers a node that joins it.
struct JoinClaim {
  NodeId id;
  size_t partitions = 0;  // storage actors
};

// May the node that answered at the addresses of `expected` be taken for that
// member? FAILED_PRECONDITION with the reason, for the logs, when not.
absl::Status JudgeAnswer(const MemberSpec& expected, const JoinClaim& claim);

// May `self` answer a node that joins as `asker`? FAILED_PRECONDITION with the
// reason, for the logs of both, when not. A node that is not on the member list
// may be answered: its list can be newer.
absl::Status JudgeAsker(const NodeId& self, const NodeId& asker);

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_JOIN_H_
