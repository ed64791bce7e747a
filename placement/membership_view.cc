#include "placement/membership_view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::placement {

absl::StatusOr<MembershipView> MembershipView::Create(
    NodeId self, std::vector<MapMember> members, ShardMap::Options options) {
  const bool listed =
      std::any_of(members.begin(), members.end(),
                  [&](const MapMember& member) { return member.id == self; });
  if (!listed) {
    return absl::InvalidArgumentError(
        absl::StrCat("node ", self.name(), " is not among the members"));
  }
  // A map of all members validates every weight, so later builds cannot fail.
  absl::StatusOr<ShardMap> map_of_all = ShardMap::Build(members, options);
  if (!map_of_all.ok()) return map_of_all.status();
  return MembershipView(std::move(self), std::move(members), options,
                        *std::move(map_of_all));
}

MembershipView::MembershipView(NodeId self, std::vector<MapMember> members,
                               ShardMap::Options options, ShardMap map_of_all)
    : self_(std::move(self)),
      members_(std::move(members)),
      options_(options),
      live_({self_}),
      map_of_all_(std::make_shared<const ShardMap>(std::move(map_of_all))) {
  Rebuild();
}

bool MembershipView::Up(const NodeId& node) {
  const bool known =
      std::any_of(members_.begin(), members_.end(),
                  [&](const MapMember& member) { return member.id == node; });
  if (!known || !live_.insert(node).second) return false;
  Rebuild();
  return true;
}

bool MembershipView::Down(const NodeId& node) {
  if (node == self_ || live_.erase(node) == 0) return false;
  Rebuild();
  return true;
}

void MembershipView::Rebuild() {
  epoch_ = Epoch(epoch_.value() + 1);
  if (const auto kept = maps_.find(live_); kept != maps_.end()) {
    map_ = kept->second;
    return;
  }
  std::vector<MapMember> alive;
  for (const MapMember& member : members_) {
    if (live_.contains(member.id)) alive.push_back(member);
  }
  absl::StatusOr<ShardMap> built = ShardMap::Build(std::move(alive), options_);
  KDN_CHECK(built.ok(), "a subset of valid members is valid");
  map_ = std::make_shared<const ShardMap>(*std::move(built));
  if (maps_.size() == kMapsKept) maps_.clear();
  maps_.emplace(live_, map_);
}

}  // namespace kdn::placement
