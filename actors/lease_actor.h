#ifndef KDN_ACTORS_LEASE_ACTOR_H_
#define KDN_ACTORS_LEASE_ACTOR_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/lease_session.h"

namespace kdn::actors {

// One pin, unpin or removal of chunks.
struct LeaseJob {
  LeaseOp op = LeaseOp::kPin;
  std::vector<ChunkRef> chunks;
  std::string ns;
  SessionId session;
  absl::Time expires = absl::InfinitePast();  // of pins
  absl::Time deadline;
  Reply<std::vector<absl::Status>> reply;
};

// The shell around one delivery::LeaseSession: carries events to the session
// and does what the session says.
struct LeaseActorState {
  static inline const char* name = "lease";

  void Init(QueryActor::pointer self, NodeContext* node, LeaseJob job);
  // The only place that sends, requests or schedules.
  void Perform();
  void OnStatuses(int number, const std::vector<StatusItem>& statuses);
  void OnNoAnswer(int number);
  void Tick();

  QueryActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<LeaseJob> job;
  std::shared_ptr<const ClusterView> view;
  std::optional<delivery::LeaseSession> session;

 private:
  void Do(const delivery::AskLease& ask);
  void Do(const delivery::WakeAt& wake);
  void Do(const delivery::AnswerLease& answer);
};

QueryActor::behavior_type MakeLeaseActor(
    QueryActor::stateful_pointer<LeaseActorState> self, NodeContext* node,
    LeaseJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::LeaseJob)

#endif  // KDN_ACTORS_LEASE_ACTOR_H_
