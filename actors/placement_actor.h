#ifndef KDN_ACTORS_PLACEMENT_ACTOR_H_
#define KDN_ACTORS_PLACEMENT_ACTOR_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "actors/messages.h"
#include "actors/node_context.h"
#include "placement/membership_view.h"

namespace kdn::actors {

// The shell around one placement::MembershipView: dials every member of the
// static list until it answers, watches it, and publishes a ClusterView after
// every change. No node leads: each sees for itself.
struct PlacementActorState {
  static inline const char* name = "placement";

  void Init(PlacementActor::pointer self, NodeContext* node,
            placement::MembershipView membership, PeerHandles own);
  void Dial(uint32_t member);
  void Join(uint32_t member, const caf::strong_actor_ptr& peer);
  void OnJoined(uint32_t member, const NodeActor& peer, const PeerInfo& info);
  void OnDown(const caf::down_msg& down);
  void DialLater(uint32_t member);
  void Publish();

  PlacementActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<placement::MembershipView> membership;
  absl::flat_hash_map<NodeId, PeerHandles> live;
};

using LiveNodes = absl::flat_hash_map<NodeId, PeerHandles>;

std::shared_ptr<const ClusterView> MakeView(
    const placement::MembershipView& membership, const LiveNodes& live);

// `own`: this node's handles. The view with this node alone must have been
// published: an actor's first turn may come late.
PlacementActor::behavior_type MakePlacementActor(
    PlacementActor::stateful_pointer<PlacementActorState> self,
    NodeContext* node, placement::MembershipView membership, PeerHandles own);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::PeerHandles)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::placement::MembershipView)

#endif  // KDN_ACTORS_PLACEMENT_ACTOR_H_
