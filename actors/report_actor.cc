#include "actors/report_actor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "actors/wire.h"

namespace kdn::actors {

void ReportActorState::Init(QueryActor::pointer self_in, NodeContext* node_in,
                            ReportJob job_in) {
  self = self_in;
  node = node_in;
  job.emplace(std::move(job_in));
  const std::shared_ptr<const ClusterView> view = node->view.Get();
  const absl::Duration left = job->deadline - node->clock->Now();
  for (const MemberOptions& member : node->options.members) {
    NodeStatus dead;
    dead.id = member.id;
    dead.gateway_address = member.gateway_address;
    const size_t slot = statuses.size();
    statuses.push_back(std::move(dead));
    const auto peer = view->live.find(member.id);
    if (peer == view->live.end()) continue;
    ++unanswered;
    self->request(peer->second.node,
                  std::chrono::microseconds(
                      std::max<int64_t>(absl::ToInt64Microseconds(left), 1)),
                  ReportAtom::value)
        .then(
            [this, slot](const NodeReport& report) {
              statuses[slot].alive = true;
              statuses[slot].metrics = FromWire(report.metrics);
              --unanswered;
              AnswerIfDone();
            },
            [this](const caf::error&) {
              --unanswered;
              AnswerIfDone();
            });
  }
}

void ReportActorState::AnswerIfDone() {
  if (unanswered > 0) return;
  job->reply(std::move(statuses));
  self->quit();
}

void ReportActorState::Tick() { AnswerIfDone(); }

QueryActor::behavior_type MakeReportActor(
    QueryActor::stateful_pointer<ReportActorState> self, NodeContext* node,
    ReportJob job) {
  ReportActorState* state = &self->state;
  state->Init(self, node, std::move(job));
  self->send(self, TickAtom::value);
  return {[state](TickAtom) { state->Tick(); }};
}

}  // namespace kdn::actors
