#ifndef KDN_ACTORS_REPORT_ACTOR_H_
#define KDN_ACTORS_REPORT_ACTOR_H_

#include <memory>
#include <optional>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/report_session.h"

namespace kdn::actors {

// One status call.
struct ReportJob {
  absl::Time deadline;
  Reply<std::vector<NodeStatus>> reply;
};

// The shell around one delivery::ReportSession: carries events to the session
// and does what the session says.
struct ReportActorState {
  static inline const char* name = "report";

  void Init(QueryActor::pointer self, NodeContext* node, ReportJob job);
  // The only place that sends, requests or schedules.
  void Perform();
  void OnReport(int number, const NodeReport& report);
  void OnNoAnswer(int number);
  void Tick();

  QueryActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<ReportJob> job;
  std::shared_ptr<const ClusterView> view;
  std::optional<delivery::ReportSession> session;

 private:
  void Do(const delivery::AskReport& ask);
  void Do(const delivery::WakeAt& wake);
  void Do(const delivery::AnswerReport& answer);
};

QueryActor::behavior_type MakeReportActor(
    QueryActor::stateful_pointer<ReportActorState> self, NodeContext* node,
    ReportJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::ReportJob)

#endif  // KDN_ACTORS_REPORT_ACTOR_H_
