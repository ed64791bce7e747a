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

// The actor that peers dial. It lets peers join, reports the node's metrics,
// and takes peers' orders to copy or verify an object. Its tick also ends the
// requests for passing memory that are past their deadlines, because passing
// memory has no clock of its own.
struct NodeActorState {
  static inline const char* name = "node";

  caf::result<PeerInfo> Join(const JoinQuery& query) const;
  // A storage actor that does not answer in time is busy: its last metrics
  // count.
  caf::result<NodeReport> Report();
  caf::result<CopyAnswer> Copy(const CopyQuery& query);
  void Suspect(const SuspectQuery& query);
  caf::result<CalibrationList> Calibrations(const CalibrationList& theirs);
  void Tick();
  // The node's metrics without those of its storage actors.
  MetricValues OwnMetrics();
  // How many shards the node owns. Counted once for each shard map.
  const placement::ShardMap::Counts& CountsOn(const ClusterView& view);

  NodeActor::pointer self = nullptr;
  NodeActorDeps deps;
  std::shared_ptr<const placement::ShardMap> counted;  // null: none yet
  placement::ShardMap::Counts counts;                  // in `counted`
  // The metrics that each storage actor has reported last.
  std::vector<MetricValues> last_of;
};

NodeActor::behavior_type MakeNodeActor(
    NodeActor::stateful_pointer<NodeActorState> self, NodeActorDeps deps);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::NodeActorDeps)

#endif  // KDN_ACTORS_NODE_ACTOR_H_
