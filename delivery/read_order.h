#ifndef KDN_DELIVERY_READ_ORDER_H_
#define KDN_DELIVERY_READ_ORDER_H_

#include <vector>

#include "absl/time/time.h"
#include "delivery/peer_health.h"
#include "kv/ids.h"

namespace kdn::delivery {

// A holder is slow when another one answers so many times faster, and so much.
inline constexpr double kSlowFactor = 4;
inline constexpr absl::Duration kSlowMargin = absl::Milliseconds(100);

// In which order a node reads from an object's owners: in owner order, but
//   * its own copy first if it is to have one (it is among the first
//     `replicas`), since that copy crosses no wire;
//   * of the other holders (the first `replicas` owners) the slow ones last;
//   * failing peers last of all.
// So an order changes on clear evidence only, and nobody is left out. The same
// values give the same order on every machine.
std::vector<NodeId> ReadOrder(std::vector<NodeId> owners, const NodeId& self,
                              int replicas, const PeerGrades& grades);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_READ_ORDER_H_
