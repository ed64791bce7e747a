#include "actors/placement_actor.h"

#include <spdlog/spdlog.h>

#include <caf/io/middleman.hpp>
#include <caf/io/middleman_actor.hpp>
#include <chrono>
#include <set>
#include <string>
#include <utility>

namespace kdn::actors {
namespace {

// Dialling and joining, each: a peer that takes longer is as good as away.
constexpr auto kDialTimeout = std::chrono::seconds(2);

}  // namespace

void PlacementActorState::Init(PlacementActor::pointer self_in,
                               NodeContext* node_in,
                               placement::MembershipView membership_in,
                               PeerHandles own) {
  self = self_in;
  node = node_in;
  membership.emplace(std::move(membership_in));
  live.emplace(node->self(), std::move(own));
  for (uint32_t i = 0; i < node->options.members.size(); ++i) {
    if (node->options.members[i].id != node->self()) Dial(i);
  }
}

void PlacementActorState::Dial(uint32_t i) {
  const MemberOptions& member = node->options.members[i];
  if (live.contains(member.id)) return;
  self->request(self->system().middleman().actor_handle(), kDialTimeout,
                caf::connect_atom::value, member.host, member.control_port)
      .then([this, i](const caf::node_id&, const caf::strong_actor_ptr& peer,
                      const std::set<std::string>&) { Join(i, peer); },
            [this, i](const caf::error&) { DialLater(i); });
}

void PlacementActorState::Join(uint32_t i, const caf::strong_actor_ptr& ptr) {
  const auto peer = caf::actor_cast<NodeActor>(ptr);
  if (!peer) return DialLater(i);
  self->request(peer, kDialTimeout, JoinAtom::value, node->self().name())
      .then([this, i, peer](const PeerInfo& info) { OnJoined(i, peer, info); },
            [this, i](const caf::error&) { DialLater(i); });
}

void PlacementActorState::OnJoined(uint32_t i, const NodeActor& peer,
                                   const PeerInfo& info) {
  const NodeId& expected = node->options.members[i].id;
  if (info.id != expected.name() || info.storage.empty()) {
    spdlog::error(
        "{}:{} is configured as {} but says it is '{}'; check the "
        "ports of both",
        node->options.members[i].host, node->options.members[i].control_port,
        expected.name(), info.id);
    return DialLater(i);
  }
  PeerHandles handles;
  handles.node = peer;
  for (const caf::strong_actor_ptr& actor : info.storage) {
    handles.storage.push_back(caf::actor_cast<StorageActor>(actor));
  }
  live[expected] = std::move(handles);
  self->monitor(peer);
  membership->Up(expected);
  Publish();
  spdlog::info("{} is up: {} of {} nodes live", expected.name(), live.size(),
               node->options.members.size());
}

void PlacementActorState::OnDown(const caf::down_msg& down) {
  for (uint32_t i = 0; i < node->options.members.size(); ++i) {
    const NodeId id = node->options.members[i].id;
    const auto peer = live.find(id);
    if (peer == live.end() || id == node->self()) continue;
    if (peer->second.node.address() != down.source) continue;
    live.erase(peer);
    membership->Down(id);
    Publish();
    node->transport->FailPeer(id);
    spdlog::warn("{} is down: {} of {} nodes live", id.name(), live.size(),
                 node->options.members.size());
    DialLater(i);
    return;
  }
}

void PlacementActorState::DialLater(uint32_t member) {
  self->delayed_send(self, absl::ToChronoMilliseconds(node->options.reconnect),
                     DialAtom::value, member);
}

void PlacementActorState::Publish() {
  node->view.Set(MakeView(*membership, live));
}

std::shared_ptr<const ClusterView> MakeView(
    const placement::MembershipView& membership, const LiveNodes& live) {
  auto view = std::make_shared<ClusterView>();
  view->epoch = membership.epoch();
  view->map = membership.map();
  view->map_of_all = membership.map_of_all();
  view->live = live;
  return view;
}

PlacementActor::behavior_type MakePlacementActor(
    PlacementActor::stateful_pointer<PlacementActorState> self,
    NodeContext* node, placement::MembershipView membership, PeerHandles own) {
  PlacementActorState* state = &self->state;
  self->set_down_handler(
      [state](const caf::down_msg& down) { state->OnDown(down); });
  state->Init(self, node, std::move(membership), std::move(own));
  return {[state](DialAtom, uint32_t member) { state->Dial(member); }};
}

}  // namespace kdn::actors
