#ifndef KDN_ACTORS_NODE_ACTOR_H_
#define KDN_ACTORS_NODE_ACTOR_H_

#include <memory>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "storage/disk_tier.h"

namespace kdn::actors {

struct NodeActorDeps {
  NodeContext* node = nullptr;
  std::vector<StorageActor> storage;
  const storage::DiskTier* disk = nullptr;  // null: memory only
  absl::Time started;
};

// What peers see of a node: who it is, its storage actors, its numbers. And the
// clock of what has none.
struct NodeActorState {
  static inline const char* name = "node";

  caf::result<PeerInfo> Join(const JoinQuery& query) const;
  caf::result<NodeReport> Report();
  caf::result<CopyAnswer> Copy(const CopyQuery& query);
  void Suspect(const SuspectQuery& query);
  void Tick();
  // All but those of the storage actors.
  MetricValues OwnMetrics();
  // The node's shards; counted once a map.
  const placement::ShardMap::Counts& CountsOn(const ClusterView& view);

  NodeActor::pointer self = nullptr;
  NodeActorDeps deps;
  std::shared_ptr<const placement::ShardMap> counted;
  placement::ShardMap::Counts counts;  // of that map
};

NodeActor::behavior_type MakeNodeActor(
    NodeActor::stateful_pointer<NodeActorState> self, NodeActorDeps deps);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::NodeActorDeps)

#endif  // KDN_ACTORS_NODE_ACTOR_H_
