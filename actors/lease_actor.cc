#include "actors/lease_actor.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "actors/delay.h"
#include "actors/query_view.h"
#include "actors/wire.h"

namespace kdn::actors {
namespace {

delivery::LeaseTask TaskOf(const LeaseJob& job, const ClusterView& view) {
  delivery::LeaseTask task{.op = job.op,
                           .owners = {},
                           .away = {},
                           .shards = {},
                           .partitions = PartitionsOf(view),
                           .deadline = job.deadline};
  for (const ChunkRef& ref : job.chunks) {
    task.owners.push_back(view.OwnersOf(ref, view.walk_depth()));
    task.away.push_back(view.AwayOwnerOf(ref));
    task.shards.push_back(view.ShardOf(ref));
  }
  return task;
}

}  // namespace

void LeaseActorState::Init(QueryActor::pointer self_in, NodeContext* node_in,
                           LeaseJob job_in) {
  self = self_in;
  node = node_in;
  job.emplace(std::move(job_in));
  view = node->view.Get();
  session.emplace(TaskOf(*job, *view));
}

void LeaseActorState::Perform() {
  for (const delivery::LeaseAction& action :
       session->TakeActions(node->clock->Now())) {
    std::visit([this](const auto& what) { Do(what); }, action);
  }
}

void LeaseActorState::Do(const delivery::AskLease& ask) {
  std::vector<ChunkKey> keys;
  keys.reserve(ask.chunks.size());
  for (const int chunk : ask.chunks) keys.push_back(job->chunks[chunk].key);
  const absl::Time now = node->clock->Now();
  const absl::Duration ttl = std::max(job->expires - now, absl::ZeroDuration());
  self->request(
          view->live.at(ask.node).storage[ask.partition],
          TimeoutUntil(ask.deadline, now), LeaseAtom::value,
          LeaseQuery{static_cast<uint8_t>(job->op), job->ns, PackKeys(keys),
                     job->session.value(), absl::ToInt64Microseconds(ttl)})
      .then(
          [this, number = ask.number](const std::vector<StatusItem>& statuses) {
            OnStatuses(number, statuses);
          },
          [this, number = ask.number](const caf::error&) {
            OnNoAnswer(number);
          });
}

void LeaseActorState::Do(const delivery::WakeAt& wake) {
  self->delayed_send(self, DelayUntil(wake.at, node->clock->Now()),
                     TickAtom::value);
}

void LeaseActorState::Do(const delivery::AnswerLease& answer) {
  job->reply(answer.statuses);
  self->quit();
}

void LeaseActorState::OnStatuses(int number,
                                 const std::vector<StatusItem>& items) {
  std::vector<absl::Status> statuses;
  statuses.reserve(items.size());
  for (const StatusItem& item : items) statuses.push_back(FromWire(item));
  session->OnAnswer(number, statuses);
  Perform();
}

void LeaseActorState::OnNoAnswer(int number) {
  session->OnNoAnswer(number);
  Perform();
}

void LeaseActorState::Tick() {
  const std::shared_ptr<const ClusterView> newest = node->view.Get();
  session->OnTime(node->clock->Now(), [&](const NodeId& id) {
    return IsStillLive(*view, *newest, id);
  });
  Perform();
}

QueryActor::behavior_type MakeLeaseActor(
    QueryActor::stateful_pointer<LeaseActorState> self, NodeContext* node,
    LeaseJob job) {
  LeaseActorState* state = &self->state;
  state->Init(self, node, std::move(job));
  state->Perform();
  return {[state](TickAtom) { state->Tick(); }};
}

}  // namespace kdn::actors
