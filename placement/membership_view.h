#ifndef KDN_PLACEMENT_MEMBERSHIP_VIEW_H_
#define KDN_PLACEMENT_MEMBERSHIP_VIEW_H_

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "kv/ids.h"
#include "placement/shard_map.h"

namespace kdn::placement {

// Which of the configured members one node believes alive, and the shard map
// that follows from it. Every change makes a new epoch. The node itself is
// always alive in its own view. Maps are kept per member set (a node that
// flaps costs one build, not one per flap). Pure; thread-compatible; the maps
// it hands out are immutable and may go to any thread.
class MembershipView {
 public:
  // INVALID_ARGUMENT when `self` is not among the members, or as
  // ShardMap::Build.
  static absl::StatusOr<MembershipView> Create(NodeId self,
                                               std::vector<MapMember> members,
                                               ShardMap::Options options);

  // True when that changed anything. Unknown nodes change nothing.
  bool Up(const NodeId& node);
  bool Down(const NodeId& node);

  bool IsLive(const NodeId& node) const { return live_.contains(node); }
  const std::set<NodeId>& live() const { return live_; }
  Epoch epoch() const { return epoch_; }
  std::shared_ptr<const ShardMap> map() const { return map_; }
  // As if all were alive: who may hold what without being asked now.
  std::shared_ptr<const ShardMap> map_of_all() const { return map_of_all_; }

 private:
  static constexpr size_t kMapsKept = 8;

  MembershipView(NodeId self, std::vector<MapMember> members,
                 ShardMap::Options options, ShardMap map_of_all);
  void Rebuild();

  NodeId self_;
  std::vector<MapMember> members_;
  ShardMap::Options options_;
  std::set<NodeId> live_;
  Epoch epoch_;
  std::shared_ptr<const ShardMap> map_of_all_;
  std::shared_ptr<const ShardMap> map_;
  std::map<std::set<NodeId>, std::shared_ptr<const ShardMap>> maps_;
};

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_MEMBERSHIP_VIEW_H_
