#include "actors/placement_actor.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/delay.h"
#include "actors/wire.h"
#include "kv/check.h"
#include "kv/log.h"

namespace kdn::actors {
namespace {

using placement::PeerAction;

// The time for joining. A peer that takes longer counts as away.
constexpr auto kAnswerTimeout = std::chrono::seconds(2);

// A site of the log for each peer, because the log limits the lines of a site:
// a line about one peer must not suppress a line about another peer.
std::string SiteOf(const char* place, const NodeId& peer) {
  return absl::StrCat(place, " ", peer.name());
}

}  // namespace

void PlacementActorState::Init(PlacementActor::pointer self_in,
                               PlacementActorDeps deps_in) {
  self = self_in;
  deps.emplace(std::move(deps_in));
  live[deps->node->self()] = deps->own;
  Perform();
}

void PlacementActorState::OnConnected(const PeerAction& dialled,
                                      const caf::strong_actor_ptr& ptr) {
  at_hand = PeerHandles();
  at_hand.node = caf::actor_cast<NodeActor>(ptr);
  const absl::Time now = deps->node->clock->Now();
  if (at_hand.node) {
    deps->membership.OnConnected(dialled.peer, dialled.dial, now);
  } else {
    deps->membership.OnFailed(dialled.peer, dialled.dial, now);
  }
  Perform();
}

void PlacementActorState::OnAnswer(const PeerAction& dialled, PeerHandles peer,
                                   const PeerInfo& info) {
  const absl::StatusOr<uint32_t> version = placement::AgreeOnVersion(
      deps->node->IntroductionTo(dialled.peer), FromWire(info.introduction));
  if (!version.ok()) {
    deps->membership.OnRefused(dialled.peer, dialled.dial,
                               std::string(version.status().message()),
                               deps->node->clock->Now());
    return Perform();
  }
  at_hand = std::move(peer);
  at_hand.version = *version;
  for (const caf::strong_actor_ptr& actor : info.storage) {
    at_hand.storage.push_back(caf::actor_cast<StorageActor>(actor));
  }
  deps->membership.OnAnswer(
      dialled.peer, dialled.dial,
      placement::JoinClaim{NodeId(info.introduction.node), info.storage.size()},
      deps->node->clock->Now());
  Perform();
}

void PlacementActorState::OnError(const PeerAction& dialled,
                                  const caf::error& why) {
  const absl::Time now = deps->node->clock->Now();
  if (const std::optional<std::string> refusal = RefusalIn(why)) {
    deps->membership.OnRefused(dialled.peer, dialled.dial, *refusal, now);
  } else {
    deps->membership.OnFailed(dialled.peer, dialled.dial, now);
  }
  Perform();
}

void PlacementActorState::OnDown(const caf::down_msg& down) {
  for (const auto& [id, dial] : dials) {
    if (live[id].node.address() != down.source) continue;
    deps->membership.OnDown(id, dial, deps->node->clock->Now());
    return Perform();
  }
}

void PlacementActorState::OnMembers(const MembersCall& call) {
  const absl::Status status =
      deps->membership.OnMembers(call.members, deps->node->clock->Now());
  if (!status.ok()) {
    LogError(
        "placement.members",
        absl::StrCat("the member list stays as it was: ", status.message()));
  }
  Perform();
}

void PlacementActorState::OnMapBuilt(const MapBuilt& built) {
  deps->membership.OnMapBuilt(built.map, deps->node->clock->Now());
  Perform();
}

void PlacementActorState::Tick(uint64_t number) {
  if (number != ticks) return;  // another tick has replaced it
  tick_due = absl::InfiniteFuture();
  Perform();
}

void PlacementActorState::Perform() {
  placement::Membership& membership = deps->membership;
  const absl::Time now = deps->node->clock->Now();
  for (const PeerAction& action : membership.TakeActions(now)) Perform(action);
  at_hand = PeerHandles();
  if (membership.TakeViewChanged()) {
    deps->node->view.Set(std::make_shared<const ClusterView>(
        ClusterView{membership.view(), live}));
    if (deps->node->calibration_actor) {
      self->send(deps->node->calibration_actor, ViewChanged{});
    }
  }
  if (auto set = membership.TakeBuild(now)) Build(*std::move(set));
  WakeAt(membership.wake());
}

void PlacementActorState::Perform(const PeerAction& action) {
  switch (action.kind) {
    case PeerAction::Kind::kConnect:
      return Connect(action);
    case PeerAction::Kind::kJoin:
      return Join(action);
    case PeerAction::Kind::kWelcome:
      return Welcome(action);
    case PeerAction::Kind::kForget:
      return Forget(action.peer);
    case PeerAction::Kind::kComplain:
      LogError(SiteOf("placement.join", action.peer),
               absl::StrCat(action.peer.name(),
                            " cannot be joined: ", action.reason));
      return;
  }
}

void PlacementActorState::Connect(const PeerAction& action) {
  self->request(deps->connector, caf::infinite,
                DialCall{action.peer, action.addresses})
      .then(
          [this, action](const caf::strong_actor_ptr& peer) {
            OnConnected(action, peer);
          },
          [this, action](const caf::error& why) { OnError(action, why); });
}

void PlacementActorState::Join(const PeerAction& action) {
  self->request(at_hand.node, kAnswerTimeout, JoinAtom::value,
                JoinQuery{ToWire(deps->node->IntroductionTo(action.peer))})
      .then([this, action, peer = at_hand](
                const PeerInfo& info) { OnAnswer(action, peer, info); },
            [this, action](const caf::error& why) { OnError(action, why); });
}

void PlacementActorState::Welcome(const PeerAction& action) {
  self->monitor(at_hand.node);
  live[action.peer] = std::move(at_hand);
  dials[action.peer] = action.dial;
  LogInfo("placement.up",
          absl::StrCat(action.peer.name(), " is up and speaks version ",
                       live[action.peer].version, ": ", CountLive()));
}

void PlacementActorState::Forget(const NodeId& peer) {
  self->demonitor(live[peer].node.address());
  live.erase(peer);
  dials.erase(peer);
  deps->node->transport->FailPeer(peer);
  LogWarning(SiteOf("placement.down", peer),
             absl::StrCat(peer.name(), " is down: ", CountLive()));
}

std::string PlacementActorState::CountLive() const {
  return absl::StrCat(live.size(), " of ",
                      deps->membership.view().members().size(), " nodes live");
}

void PlacementActorState::Build(placement::MapMembers set) {
  deps->node->pool.Post(
      {WorkClass::kBackground, deps->node->pool.NextRequester(), 0},
      [to = caf::actor_cast<PlacementActor>(self), set = std::move(set),
       options = deps->membership.map_options()]() mutable {
        absl::StatusOr<placement::ShardMap> map =
            placement::ShardMap::Build(std::move(set), options);
        KDN_CHECK(map.ok(), "a part of a valid member list is valid");
        caf::anon_send(to, MapBuilt{std::make_shared<const placement::ShardMap>(
                               *std::move(map))});
      });
}

void PlacementActorState::WakeAt(absl::Time wake) {
  if (wake >= tick_due) return;
  tick_due = wake;
  self->delayed_send(self, DelayUntil(wake, deps->node->clock->Now()),
                     TickAtom::value, ++ticks);
}

PlacementActor::behavior_type MakePlacementActor(
    PlacementActor::stateful_pointer<PlacementActorState> self,
    PlacementActorDeps deps) {
  PlacementActorState* state = &self->state;
  self->set_down_handler(
      [state](const caf::down_msg& down) { state->OnDown(down); });
  state->Init(self, std::move(deps));
  return {
      [state](const MembersCall& call) { state->OnMembers(call); },
      [state](const MapBuilt& built) { state->OnMapBuilt(built); },
      [state](TickAtom, uint64_t number) { state->Tick(number); },
  };
}

}  // namespace kdn::actors
