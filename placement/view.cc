#include "placement/view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/host_port.h"

namespace kdn::placement {

View::View(Parts parts) : parts_(std::move(parts)) {
  KDN_CHECK(parts_.map != nullptr && parts_.map_of_all != nullptr,
            "a view has both maps");
  for (const MapMember& member : parts_.map->members()) {
    live_in_map_.push_back(IsLive(member.id));
  }
}

const Member* View::Find(const NodeId& node) const {
  const auto at =
      std::lower_bound(parts_.members.begin(), parts_.members.end(), node,
                       [](const Member& member, const NodeId& id) {
                         return member.spec.id < id;
                       });
  if (at == parts_.members.end() || at->spec.id != node) return nullptr;
  return &*at;
}

absl::StatusOr<std::string> View::BulkAddressOf(const NodeId& node) const {
  const Member* member = Find(node);
  if (member == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(node.name(), " is not a member of the cluster"));
  }
  const Addresses& addresses = member->spec.addresses;
  return HostPort(addresses.host, addresses.bulk_port);
}

bool View::IsLive(const NodeId& node) const {
  const Member* member = Find(node);
  return member != nullptr && member->state != MemberState::kAway;
}

int View::copies() const {
  return std::min(parts_.replicas, static_cast<int>(parts_.members.size()));
}

std::vector<NodeId> View::OwnersOf(const ChunkRef& ref, int count) const {
  std::vector<NodeId> owners;
  for (uint16_t member : parts_.map->OrderOf(ShardOf(ref.key))) {
    if (static_cast<int>(owners.size()) == count) break;
    if (!live_in_map_[member]) continue;
    owners.push_back(parts_.map->members()[member].id);
  }
  if (owners.empty()) owners.push_back(parts_.self);
  return owners;
}

std::optional<NodeId> View::AwayOwnerOf(const ChunkRef& ref) const {
  for (const NodeId& owner :
       parts_.map_of_all->Owners(ShardOf(ref.key), walk_depth())) {
    const Member* member = Find(owner);
    if (member != nullptr && member->state == MemberState::kAway) return owner;
  }
  return std::nullopt;
}

void View::CheckInvariants() const {
  KDN_CHECK(parts_.replicas >= 1, "every chunk has a copy");
  for (size_t i = 1; i < parts_.members.size(); ++i) {
    KDN_CHECK(parts_.members[i - 1].spec.id < parts_.members[i].spec.id,
              "members are sorted by id, and no id comes twice");
  }
  KDN_CHECK(IsLive(parts_.self), "this node is live");
  for (const Member& member : parts_.members) {
    const bool in_map = parts_.map->Has(member.spec.id);
    const bool owns = member.state == MemberState::kServing ||
                      member.state == MemberState::kLeaving;
    KDN_CHECK(in_map || !owns, "a member that serves or leaves is in the map");
    KDN_CHECK(!in_map || member.state != MemberState::kJoining,
              "a member that joins is not in the map");
    KDN_CHECK(member.state == MemberState::kAway ||
                  member.incarnation != Incarnation() ||
                  member.spec.id == parts_.self,
              "a live peer was reached at least once");
  }
}

}  // namespace kdn::placement
