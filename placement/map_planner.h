#ifndef KDN_PLACEMENT_MAP_PLANNER_H_
#define KDN_PLACEMENT_MAP_PLANNER_H_

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "placement/shard_map.h"

namespace kdn::placement {

// The members of a map, by id.
using MapMembers = std::vector<MapMember>;

// Decides which shard maps are built, and when. A build takes tens of
// milliseconds of a worker, so changes that come close together cost one build,
// and maps of earlier member sets are kept: a node that flaps costs one build,
// not one per flap. Events and the time in, builds out. Pure;
// thread-compatible.
class MapPlanner {
 public:
  static constexpr size_t kMapsKept = 8;
  static constexpr size_t kWantedMax = 2;

  // `coalesce`: how long a build waits for more changes, counted from the first
  // change.
  explicit MapPlanner(absl::Duration coalesce) : coalesce_(coalesce) {}

  // Maps of these sets are wanted from now on, the more urgent ones first.
  // REQUIRES: at most kWantedMax sets, each sorted by id.
  void Want(std::vector<MapMembers> sets, absl::Time now);
  // The set whose map is to be built now. The caller builds the map and calls
  // OnBuilt; until then there is no other build.
  std::optional<MapMembers> TakeBuild(absl::Time now);
  // REQUIRES: a map of the set that TakeBuild handed out last.
  void OnBuilt(std::shared_ptr<const ShardMap> map);
  // A map that was built without being asked for.
  void Keep(std::shared_ptr<const ShardMap> map);

  // Null when the map is not kept.
  std::shared_ptr<const ShardMap> Find(const MapMembers& set) const;
  // When TakeBuild has something; InfiniteFuture while it has to wait for an
  // event.
  absl::Time wake() const;
  void CheckInvariants() const;

 private:
  const MapMembers* FirstMissing() const;
  // Moves the wanted maps to the front of kept_: they are never dropped.
  void Touch();

  absl::Duration coalesce_;
  std::vector<MapMembers> wanted_;
  // The wanted maps, then the last built first.
  std::deque<std::shared_ptr<const ShardMap>> kept_;
  std::optional<MapMembers> building_;
  std::optional<absl::Time> due_;  // set while a wanted map is missing
};

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_MAP_PLANNER_H_
