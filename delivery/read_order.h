#ifndef KDN_DELIVERY_READ_ORDER_H_
#define KDN_DELIVERY_READ_ORDER_H_

#include <vector>

#include "absl/time/time.h"
#include "delivery/peer_health.h"
#include "kv/ids.h"

namespace kdn::delivery {

// A holder (see ReadOrder) is slow when its latency exceeds kSlowFactor times
// the least latency of the other holders by more than kSlowMargin.
inline constexpr double kSlowFactor = 4;
inline constexpr absl::Duration kSlowMargin = absl::Milliseconds(100);

// The order in which a node reads from an object's owners. It is the owner
// order with these changes. The holders are the first `replicas` owners.
//   * The node's own copy is first if the node is a holder, because that copy
//     crosses no wire.
//   * Slow holders come after the other holders.
//   * Failing peers are last of all.
// So the order changes on clear evidence only, and no owner is left out. Equal
// values give equal orders on every machine.
std::vector<NodeId> ReadOrder(std::vector<NodeId> owners, const NodeId& self,
                              int replicas, const PeerGrades& grades);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_READ_ORDER_H_
