#include "placement/membership.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/invariants.h"

namespace kdn::placement {
namespace {

MapMembers MapMembersOf(const std::vector<MemberSpec>& list) {
  MapMembers members;
  for (const MemberSpec& spec : list) {
    members.push_back(MapMember{spec.id, spec.weight});
  }
  return members;
}

// REQUIRES: ShardMap::Validate accepts the set.
std::shared_ptr<const ShardMap> BuildNow(const MapMembers& set,
                                         const ShardMap::Options& options) {
  absl::StatusOr<ShardMap> map = ShardMap::Build(set, options);
  KDN_CHECK(map.ok(), "part of a valid member list makes a map");
  return std::make_shared<const ShardMap>(*std::move(map));
}

}  // namespace

absl::Status ValidateMembers(const NodeId& self, int replicas,
                             const std::vector<MemberSpec>& list) {
  if (replicas < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("'replicas' is ", replicas, ", expected 1 or more"));
  }
  const bool listed =
      std::any_of(list.begin(), list.end(),
                  [&](const MemberSpec& spec) { return spec.id == self; });
  if (!listed) {
    return absl::InvalidArgumentError(
        absl::StrCat("node '", self.name(), "' is not among the members"));
  }
  return ShardMap::Validate(MapMembersOf(list), MapOptionsFor(replicas));
}

ShardMap::Options MapOptionsFor(int replicas) {
  ShardMap::Options options;
  options.order_length = std::max(options.order_length, replicas + 2);
  return options;
}

absl::StatusOr<Membership> Membership::Create(Options options,
                                              std::vector<MemberSpec> list,
                                              absl::Time now) {
  absl::Status status = ValidateMembers(options.self, options.replicas, list);
  if (!status.ok()) return status;
  return Membership(std::move(options), std::move(list), now);
}

Membership::Membership(Options options, std::vector<MemberSpec> list,
                       absl::Time now)
    : options_(std::move(options)),
      map_options_(MapOptionsFor(options_.replicas)),
      dialler_(options_.dialling),
      planner_(options_.coalesce) {
  map_of_all_ = BuildNow(MapMembersOf(list), map_options_);
  const auto self = std::find_if(
      list.begin(), list.end(),
      [&](const MemberSpec& spec) { return spec.id == options_.self; });
  map_ = list.size() == 1
             ? map_of_all_
             : BuildNow({MapMember{self->id, self->weight}}, map_options_);
  planner_.Keep(map_);
  planner_.Keep(map_of_all_);
  SetList(std::move(list), now);
}

absl::Status Membership::OnMembers(std::vector<MemberSpec> list,
                                   absl::Time now) {
  absl::Status status = ValidateMembers(options_.self, options_.replicas, list);
  if (status.ok()) SetList(std::move(list), now);
  return status;
}

void Membership::SetList(std::vector<MemberSpec> list, absl::Time now) {
  std::map<NodeId, Entry> before = std::exchange(entries_, {});
  std::vector<MemberSpec> peers;
  for (MemberSpec& spec : list) {
    Entry& entry = entries_[spec.id];
    if (const auto known = before.find(spec.id); known != before.end()) {
      entry = known->second;
    }
    if (spec.id == options_.self) {
      entry.up = true;
    } else {
      peers.push_back(spec);
    }
    entry.spec = std::move(spec);
  }
  dialler_.SetPeers(peers, now);
  Absorb(now);
  Refresh(now);
}

void Membership::OnConnected(const NodeId& peer, DialId dial, absl::Time now) {
  dialler_.OnConnected(peer, dial);
  Absorb(now);
}

void Membership::OnAnswer(const NodeId& peer, DialId dial,
                          const JoinClaim& claim, absl::Time now) {
  dialler_.OnAnswer(peer, dial, claim, now);
  Absorb(now);
}

void Membership::OnRefused(const NodeId& peer, DialId dial,
                           const std::string& reason, absl::Time now) {
  dialler_.OnRefused(peer, dial, reason, now);
  Absorb(now);
}

void Membership::OnFailed(const NodeId& peer, DialId dial, absl::Time now) {
  dialler_.OnFailed(peer, dial, now);
  Absorb(now);
}

void Membership::OnDown(const NodeId& peer, DialId dial, absl::Time now) {
  dialler_.OnDown(peer, dial, now);
  Absorb(now);
}

void Membership::OnMapBuilt(std::shared_ptr<const ShardMap> map,
                            absl::Time now) {
  planner_.OnBuilt(std::move(map));
  Refresh(now);
}

std::vector<PeerAction> Membership::TakeActions(absl::Time now) {
  Absorb(now);
  KDN_DCHECK_INVARIANTS(*this);
  return std::exchange(actions_, {});
}

void Membership::Absorb(absl::Time now) {
  bool changed = false;
  for (PeerAction& action : dialler_.TakeActions(now)) {
    changed |= TakeIn(action);
    actions_.push_back(std::move(action));
  }
  if (changed) Refresh(now);
}

bool Membership::TakeIn(const PeerAction& action) {
  const auto entry = entries_.find(action.peer);
  if (entry == entries_.end()) return false;  // it was taken off the list
  switch (action.kind) {
    case PeerAction::Kind::kWelcome:
      entry->second.up = true;
      entry->second.incarnation = Incarnation(action.dial.value());
      return true;
    case PeerAction::Kind::kForget:
      entry->second.up = false;
      return true;
    case PeerAction::Kind::kConnect:
    case PeerAction::Kind::kJoin:
    case PeerAction::Kind::kComplain:
      return false;
  }
  return false;
}

void Membership::Refresh(absl::Time now) {
  MapMembers all;
  MapMembers up;
  for (const auto& [id, entry] : entries_) {
    all.push_back(MapMember{id, entry.spec.weight});
    if (entry.up) up.push_back(all.back());
  }
  planner_.Want({up, all}, now);
  if (auto map = planner_.Find(up); map != nullptr) map_ = std::move(map);
  if (auto map = planner_.Find(all); map != nullptr) {
    map_of_all_ = std::move(map);
  }
  View::Parts parts{options_.self,
                    options_.replicas,
                    view_ ? view_->epoch() : Epoch(),
                    MembersFor(*map_),
                    map_,
                    map_of_all_};
  if (view_ && view_->parts() == parts) return;
  parts.epoch = Epoch(parts.epoch.value() + 1);
  view_.emplace(std::move(parts));
  view_changed_ = true;
}

std::vector<Member> Membership::MembersFor(const ShardMap& map) const {
  std::vector<Member> members;
  for (const auto& [id, entry] : entries_) {
    MemberState state = MemberState::kAway;
    if (entry.up && !map.Has(id)) {
      state = MemberState::kJoining;
    } else if (entry.up) {
      state =
          entry.spec.leaving ? MemberState::kLeaving : MemberState::kServing;
    }
    members.push_back(Member{entry.spec, state, entry.incarnation});
  }
  return members;
}

bool Membership::TakeViewChanged() {
  return std::exchange(view_changed_, false);
}

std::optional<MapMembers> Membership::TakeBuild(absl::Time now) {
  return planner_.TakeBuild(now);
}

absl::Time Membership::wake() const {
  return std::min(dialler_.wake(), planner_.wake());
}

void Membership::CheckInvariants() const {
  dialler_.CheckInvariants();
  planner_.CheckInvariants();
  view_->CheckInvariants();
  KDN_CHECK(view_->members().size() == entries_.size(),
            "the view has exactly the members of the list");
  for (const auto& [id, entry] : entries_) {
    KDN_CHECK(view_->IsLive(id) == entry.up,
              "the view says which members are up");
    KDN_CHECK(entry.up == (id == options_.self || dialler_.IsUp(id)),
              "exactly this node and the peers that the dialler has up are up");
  }
}

}  // namespace kdn::placement
