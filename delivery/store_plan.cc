#include "delivery/store_plan.h"

#include <algorithm>

namespace kdn::delivery {

BuildPlace BuildPlaceOf(absl::Span<const NodeId> owners, const NodeId& self,
                        int replicas) {
  const auto holders = owners.subspan(0, static_cast<size_t>(replicas));
  return std::find(holders.begin(), holders.end(), self) == holders.end()
             ? BuildPlace::kPassing
             : BuildPlace::kPartition;
}

codec::LosslessForm LosslessFormOf(Durability durability,
                                   absl::Span<const NodeId> owners,
                                   const NodeId& self) {
  const bool stays = !owners.empty() && owners.front() == self;
  return durability == Durability::kCache && stays
             ? codec::LosslessForm::kRaw
             : codec::LosslessForm::kCoded;
}

}  // namespace kdn::delivery
