#ifndef KDN_DELIVERY_STORE_PLAN_H_
#define KDN_DELIVERY_STORE_PLAN_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kv/ids.h"

// What a node decides of a store before it has encoded anything. Pure.
namespace kdn::delivery {

// Where a node builds an object.
enum class BuildPlace : uint8_t {
  // In the memory of its own partition, where the object stays.
  kPartition,
  // In memory for objects that only pass through.
  kPassing,
};

// A node that is one of the first `replicas` owners builds the object where it
// will stay. Any other node builds the object in passing: it is not to keep a
// copy, and building must not evict what its partition holds. `owners`: live
// owner order.
BuildPlace BuildPlaceOf(absl::Span<const NodeId> owners, const NodeId& self,
                        int replicas);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_STORE_PLAN_H_
