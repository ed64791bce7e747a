#ifndef KDN_ACTORS_PLACEMENT_ACTOR_H_
#define KDN_ACTORS_PLACEMENT_ACTOR_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "placement/membership.h"

namespace kdn::actors {

struct PlacementActorDeps {
  NodeContext* node = nullptr;
  placement::Membership membership;
  PeerHandles own;  // of this node
  ConnectorActor connector;
};

// The shell around one placement::Membership. It connects to peers, joins and
// watches them, has shard maps built on the worker pool, and publishes a
// ClusterView after every change.
struct PlacementActorState {
  static inline const char* name = "placement";

  void Init(PlacementActor::pointer self, PlacementActorDeps deps);
  void OnConnected(const placement::PeerAction& dialled,
                   const caf::strong_actor_ptr& peer);
  void OnAnswer(const placement::PeerAction& dialled, PeerHandles peer,
                const PeerInfo& info);
  // The peer was not reached, did not prove its name, answered the join with
  // an error, or did not answer in time.
  void OnError(const placement::PeerAction& dialled, const caf::error& why);
  void OnDown(const caf::down_msg& down);
  void OnMembers(const MembersCall& call);
  void OnMapBuilt(const MapBuilt& built);
  void Tick(uint64_t number);

  // Performs what the membership has decided.
  void Perform();
  void Perform(const placement::PeerAction& action);
  void Connect(const placement::PeerAction& action);
  void Join(const placement::PeerAction& action);
  void Welcome(const placement::PeerAction& action);
  void Forget(const NodeId& peer);
  // "2 of 3 nodes live", for the log.
  std::string CountLive() const;
  void Build(placement::MapMembers set);
  void WakeAt(absl::Time wake);

  PlacementActor::pointer self = nullptr;
  std::optional<PlacementActorDeps> deps;
  LiveNodes live;                             // this node included
  std::map<NodeId, placement::DialId> dials;  // of the peers in `live`
  // The handles of the peer that the present event is about, for the actions
  // kJoin and kWelcome.
  PeerHandles at_hand;
  // The number of the last tick that was scheduled. Earlier ticks are ignored.
  uint64_t ticks = 0;
  // When that tick comes. InfiniteFuture: no tick is scheduled.
  absl::Time tick_due = absl::InfiniteFuture();
};

// REQUIRES: a view with this node alone is published, because the actor's first
// turn may come late.
PlacementActor::behavior_type MakePlacementActor(
    PlacementActor::stateful_pointer<PlacementActorState> self,
    PlacementActorDeps deps);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::PlacementActorDeps)

#endif  // KDN_ACTORS_PLACEMENT_ACTOR_H_
