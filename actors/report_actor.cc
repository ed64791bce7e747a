#include "actors/report_actor.h"

#include <utility>
#include <variant>

#include "actors/delay.h"
#include "actors/query_view.h"
#include "actors/wire.h"

namespace kdn::actors {

void ReportActorState::Init(QueryActor::pointer self_in, NodeContext* node_in,
                            ReportJob job_in) {
  self = self_in;
  node = node_in;
  job.emplace(std::move(job_in));
  view = node->view.Get();
  std::vector<delivery::ReportedNode> nodes;
  for (const placement::Member& member : view->members()) {
    // A member that is joining owns no shards yet and is not reported as alive:
    // a caller that waits until a node is alive can then store on the node.
    const bool alive = member.state == placement::MemberState::kServing ||
                       member.state == placement::MemberState::kLeaving;
    nodes.push_back({member.spec.id, member.spec.addresses.gateway, alive});
  }
  session.emplace(std::move(nodes), job->deadline);
}

void ReportActorState::Perform() {
  for (const delivery::ReportAction& action :
       session->TakeActions(node->clock->Now())) {
    std::visit([this](const auto& what) { Do(what); }, action);
  }
}

void ReportActorState::Do(const delivery::AskReport& ask) {
  self->request(view->live.at(ask.node).node,
                TimeoutUntil(ask.deadline, node->clock->Now()),
                ReportAtom::value)
      .then([this, number = ask.number](
                const NodeReport& report) { OnReport(number, report); },
            [this, number = ask.number](const caf::error&) {
              OnNoAnswer(number);
            });
}

void ReportActorState::Do(const delivery::WakeAt& wake) {
  self->delayed_send(self, DelayUntil(wake.at, node->clock->Now()),
                     TickAtom::value);
}

void ReportActorState::Do(const delivery::AnswerReport& answer) {
  job->reply(answer.statuses);
  self->quit();
}

void ReportActorState::OnReport(int number, const NodeReport& report) {
  session->OnAnswer(number, FromWire(report.metrics));
  Perform();
}

void ReportActorState::OnNoAnswer(int number) {
  session->OnNoAnswer(number);
  Perform();
}

void ReportActorState::Tick() {
  const std::shared_ptr<const ClusterView> newest = node->view.Get();
  session->OnTime(node->clock->Now(), [&](const NodeId& id) {
    return IsStillLive(*view, *newest, id);
  });
  Perform();
}

QueryActor::behavior_type MakeReportActor(
    QueryActor::stateful_pointer<ReportActorState> self, NodeContext* node,
    ReportJob job) {
  ReportActorState* state = &self->state;
  state->Init(self, node, std::move(job));
  state->Perform();
  return {[state](TickAtom) { state->Tick(); }};
}

}  // namespace kdn::actors
