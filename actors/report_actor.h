#ifndef KDN_ACTORS_REPORT_ACTOR_H_
#define KDN_ACTORS_REPORT_ACTOR_H_

#include <optional>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"

namespace kdn::actors {

struct ReportJob {
  absl::Time deadline;
  Reply<std::vector<NodeStatus>> reply;
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
  std::vector<NodeStatus> statuses;
  int unanswered = 0;
};

QueryActor::behavior_type MakeReportActor(
    QueryActor::stateful_pointer<ReportActorState> self, NodeContext* node,
    ReportJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::ReportJob)

#endif  // KDN_ACTORS_REPORT_ACTOR_H_
