#ifndef KDN_ACTORS_STORE_ACTOR_H_
#define KDN_ACTORS_STORE_ACTOR_H_

#include <memory>
#include <optional>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/store_session.h"

namespace kdn::actors {

// An encoded object on its way to its owners.
struct StoreJob {
  ChunkRef ref;
  storage::ObjectInfo info;
  std::shared_ptr<storage::ArenaBlock> block;
  bool in_passing = false;  // the block is of the node's scratch memory
  Durability durability = Durability::kReplicated;
  absl::Time expires = absl::InfinitePast();
  absl::Time deadline;
  Reply<StoreReceipt> reply;
};

// The shell around one delivery::StoreSession.
struct StoreActorState {
  static inline const char* name = "store";

  void Init(StoreActor::pointer self, NodeContext* node, StoreJob job);
  void Perform();
  void CommitHere();
  // Copies the object into the partition's memory first.
  void CommitCopy(const StorageActor& storage, CommitCall commit);
  void PushTo(const NodeId& peer);
  // Another store won: its node hands its object on.
  void CopyFrom(const NodeId& winner, const NodeId& target);
  void OnSent(const SendEnd& end);
  void OnDeadline();

  StoreActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<StoreJob> job;
  std::shared_ptr<const ClusterView> view;
  std::optional<delivery::StoreSession> session;
};

StoreActor::behavior_type MakeStoreActor(
    StoreActor::stateful_pointer<StoreActorState> self, NodeContext* node,
    StoreJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::StoreJob)

#endif  // KDN_ACTORS_STORE_ACTOR_H_
