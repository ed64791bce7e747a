#ifndef KDN_ACTORS_LEASE_ACTOR_H_
#define KDN_ACTORS_LEASE_ACTOR_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"

namespace kdn::actors {

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

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::LeaseJob)

#endif  // KDN_ACTORS_LEASE_ACTOR_H_
