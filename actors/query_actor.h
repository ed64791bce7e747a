#ifndef KDN_ACTORS_QUERY_ACTOR_H_
#define KDN_ACTORS_QUERY_ACTOR_H_

#include <memory>
#include <optional>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/replica_walk.h"

namespace kdn::actors {

struct LookupJob {
  std::vector<ChunkRef> chunks;
  std::string ns;
  absl::Time deadline;
  Reply<std::vector<delivery::LookupResult>> reply;
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
  std::vector<delivery::LookupResult> results;
};

QueryActor::behavior_type MakeLookupActor(
    QueryActor::stateful_pointer<LookupActorState> self, NodeContext* node,
    LookupJob job);

struct LeaseJob {
  LeaseOp op = LeaseOp::kPin;
  std::vector<ChunkRef> chunks;
  std::string ns;
  SessionId session;
  absl::Time expires = absl::InfinitePast();
  absl::Time deadline;
  Reply<std::vector<absl::Status>> reply;
};

// One pin, unpin or remove: asks every owner that may hold a copy, because each
// copy has leases of its own. A removal is not done while one of them is away.
struct LeaseActorState {
  static inline const char* name = "lease";

  void Init(QueryActor::pointer self, NodeContext* node, LeaseJob job);
  void Send(const NodeId& owner, const StorageActor& storage,
            std::vector<int> items);
  void OnStatuses(const std::vector<int>& items,
                  const std::vector<StatusItem>& statuses);
  void OnNoAnswer(const std::vector<int>& items, const NodeId& owner);
  void AnswerIfDone();
  void Tick();

  QueryActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<LeaseJob> job;
  std::shared_ptr<const ClusterView> view;
  std::vector<absl::Status> merged;
  int unanswered = 0;
};

QueryActor::behavior_type MakeLeaseActor(
    QueryActor::stateful_pointer<LeaseActorState> self, NodeContext* node,
    LeaseJob job);

struct ReportJob {
  absl::Time deadline;
  Reply<std::vector<delivery::NodeStatus>> reply;
};

// One status call: asks every live node, this one included.
struct ReportActorState {
  static inline const char* name = "report";

  void Init(QueryActor::pointer self, NodeContext* node, ReportJob job);
  void AnswerIfDone();
  void Tick();

  QueryActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<ReportJob> job;
  std::vector<delivery::NodeStatus> statuses;
  int unanswered = 0;
};

QueryActor::behavior_type MakeReportActor(
    QueryActor::stateful_pointer<ReportActorState> self, NodeContext* node,
    ReportJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::LookupJob)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::LeaseJob)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::ReportJob)

#endif  // KDN_ACTORS_QUERY_ACTOR_H_
