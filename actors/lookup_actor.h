#ifndef KDN_ACTORS_LOOKUP_ACTOR_H_
#define KDN_ACTORS_LOOKUP_ACTOR_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/replica_walk.h"

namespace kdn::actors {

struct LookupJob {
  std::vector<ChunkRef> chunks;
  std::string ns;
  absl::Time deadline;
  Reply<std::vector<LookupResult>> reply;
};

// One lookup: walks the chunks through their owner orders.
struct LookupActorState {
  static inline const char* name = "lookup";

  void Init(QueryActor::pointer self, NodeContext* node, LookupJob job);
  void Perform();
  void Send(const NodeId& node, const StorageActor& storage,
            std::vector<int> items);
  void OnItems(const NodeId& node, const std::vector<int>& items,
               const std::vector<LookupItem>& found);
  void MoveOn(const NodeId& node, const std::vector<int>& items,
              const absl::Status& why);
  void Tick();

  QueryActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<LookupJob> job;
  std::shared_ptr<const ClusterView> view;
  std::optional<delivery::ReplicaWalk> walk;
  std::vector<LookupResult> results;
};

QueryActor::behavior_type MakeLookupActor(
    QueryActor::stateful_pointer<LookupActorState> self, NodeContext* node,
    LookupJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::LookupJob)

#endif  // KDN_ACTORS_LOOKUP_ACTOR_H_
