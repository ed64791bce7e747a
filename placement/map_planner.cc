#include "placement/map_planner.h"

#include <algorithm>
#include <utility>

#include "kv/check.h"

namespace kdn::placement {

void MapPlanner::Want(std::vector<MapMembers> sets, absl::Time now) {
  KDN_CHECK(sets.size() <= kWantedMax, "more maps wanted than are kept");
  const std::vector<MapMembers> before =
      std::exchange(wanted_, std::move(sets));
  Touch();
  const bool changed =
      std::any_of(wanted_.begin(), wanted_.end(), [&](const MapMembers& set) {
        return std::find(before.begin(), before.end(), set) == before.end() &&
               building_ != set && Find(set) == nullptr;
      });
  if (FirstMissing() == nullptr) {
    due_.reset();
  } else if (!due_ || (changed && *due_ <= now)) {
    due_ = now + coalesce_;  // counts from the first change since a build
  }
}

std::optional<MapMembers> MapPlanner::TakeBuild(absl::Time now) {
  if (now < wake()) return std::nullopt;
  building_ = *FirstMissing();
  return building_;
}

void MapPlanner::OnBuilt(std::shared_ptr<const ShardMap> map) {
  KDN_CHECK(building_ == map->members(),
            "the map is of the set that TakeBuild returned");
  building_.reset();
  Keep(std::move(map));
}

void MapPlanner::Keep(std::shared_ptr<const ShardMap> map) {
  if (Find(map->members()) != nullptr) return;
  kept_.push_front(std::move(map));
  Touch();
  if (kept_.size() > kMapsKept) kept_.resize(kMapsKept);
  if (FirstMissing() == nullptr) due_.reset();
}

std::shared_ptr<const ShardMap> MapPlanner::Find(const MapMembers& set) const {
  for (const std::shared_ptr<const ShardMap>& map : kept_) {
    if (map->members() == set) return map;
  }
  return nullptr;
}

absl::Time MapPlanner::wake() const {
  return due_ && !building_ ? *due_ : absl::InfiniteFuture();
}

const MapMembers* MapPlanner::FirstMissing() const {
  for (const MapMembers& set : wanted_) {
    if (Find(set) == nullptr) return &set;
  }
  return nullptr;
}

void MapPlanner::Touch() {
  std::stable_partition(kept_.begin(), kept_.end(),
                        [&](const std::shared_ptr<const ShardMap>& map) {
                          return std::find(wanted_.begin(), wanted_.end(),
                                           map->members()) != wanted_.end();
                        });
}

void MapPlanner::CheckInvariants() const {
  KDN_CHECK(kept_.size() <= kMapsKept, "too many maps are kept");
  for (const std::shared_ptr<const ShardMap>& map : kept_) {
    KDN_CHECK(map != nullptr && Find(map->members()) == map,
              "a member set has one map");
  }
  KDN_CHECK(due_.has_value() == (FirstMissing() != nullptr),
            "a build is due while a wanted map is missing");
  KDN_CHECK(!building_ || Find(*building_) == nullptr,
            "the map under way is not among the kept maps");
}

}  // namespace kdn::placement
