#ifndef KDN_PLACEMENT_MAP_PLANNER_H_
#define KDN_PLACEMENT_MAP_PLANNER_H_

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "placement/shard_map.h"

namespace kdn::placement {

// The members of a map, sorted by id.
using MapMembers = std::vector<MapMember>;

// Decides which shard maps are built, and when. A build occupies a worker for
// tens of milliseconds. So changes that come close together share one build,
// and maps of earlier member sets are kept: a node that comes and goes often
// costs only one build. Events and the time in, builds out. Pure;
// thread-compatible.
class MapPlanner {
 public:
  static constexpr size_t kMapsKept = 8;
  static constexpr size_t kWantedMax = 2;

  // `coalesce`: how long a build waits for more changes, counted from the first
  // change.
  explicit MapPlanner(absl::Duration coalesce) : coalesce_(coalesce) {}

  // Sets the member sets whose maps are needed, the most urgent set first.
  // REQUIRES: at most kWantedMax sets, each sorted by id.
  void Want(std::vector<MapMembers> sets, absl::Time now);
  // The set to build a map of now; nullopt when no build is due. The caller
  // builds the map and calls OnBuilt; until then no other build is due.
  std::optional<MapMembers> TakeBuild(absl::Time now);
  // REQUIRES: `map` is of the set that TakeBuild returned last.
  void OnBuilt(std::shared_ptr<const ShardMap> map);
  // Adds a map that the caller built unasked.
  void Keep(std::shared_ptr<const ShardMap> map);

  // Null when the map is not kept.
  std::shared_ptr<const ShardMap> Find(const MapMembers& set) const;
  // When the next build is due. InfiniteFuture: only after an event.
  absl::Time wake() const;
  void CheckInvariants() const;

 private:
  // The first wanted set without a map. Null when every wanted set has a map.
  const MapMembers* FirstMissing() const;
  // Moves the wanted maps to the front of kept_, where they are not dropped.
  void Touch();

  absl::Duration coalesce_;
  std::vector<MapMembers> wanted_;
  // The wanted maps, then the others, the newest map first.
  std::deque<std::shared_ptr<const ShardMap>> kept_;
  std::optional<MapMembers> building_;
  // When the next build is due. Set while a wanted map is missing.
  std::optional<absl::Time> due_;
};

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_MAP_PLANNER_H_
