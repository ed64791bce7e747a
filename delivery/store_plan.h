#ifndef KDN_DELIVERY_STORE_PLAN_H_
#define KDN_DELIVERY_STORE_PLAN_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "codec/stream_codec.h"
#include "kv/answers.h"
#include "kv/ids.h"

// What a node decides about a store before it encodes anything. Pure.
namespace kdn::delivery {

// Where a node builds an object.
enum class BuildPlace : uint8_t {
  // In the memory of its own partition, where the object stays.
  kPartition,
  // In passing memory: memory for objects that do not stay on this node.
  kPassing,
};

// A node that is one of the first `replicas` owners builds the object where the
// object will stay. Any other node builds it in passing memory: such a node
// keeps no copy, and must not evict objects of its partition for it. `owners`:
// the live owners, in owner order.
BuildPlace BuildPlaceOf(absl::Span<const NodeId> owners, const NodeId& self,
                        int replicas);

// A `cache` store of which this node is the first owner is kept raw: it is
// answered without crossing a link. An engine on this host stores it five times
// as fast as with coded exponents, and retrieves it at the speed of a copy. Any
// other object is sent to another node before its store is answered, or is
// meant to stay for long, and is encoded small.
codec::LosslessForm LosslessFormOf(Durability durability,
                                   absl::Span<const NodeId> owners,
                                   const NodeId& self);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_STORE_PLAN_H_
