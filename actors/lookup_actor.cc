#include "actors/lookup_actor.h"

#include <utility>
#include <variant>

#include "actors/delay.h"
#include "actors/query_view.h"
#include "actors/wire.h"
#include "delivery/read_order.h"

namespace kdn::actors {
namespace {

delivery::LookupTask TaskOf(const LookupJob& job, const NodeContext& node,
                            const ClusterView& view) {
  delivery::LookupTask task{.read_orders = {},
                            .shards = {},
                            .partitions = PartitionsOf(view),
                            .deadline = job.deadline};
  const delivery::PeerGrades grades = node.health.GradesAt(node.clock->Now());
  for (const ChunkRef& ref : job.chunks) {
    task.read_orders.push_back(
        delivery::ReadOrder(view.OwnersOf(ref, view.walk_depth()), node.self(),
                            view.copies(), grades));
    task.shards.push_back(view.ShardOf(ref));
  }
  return task;
}

}  // namespace

void LookupActorState::Init(QueryActor::pointer self_in, NodeContext* node_in,
                            LookupJob job_in) {
  self = self_in;
  node = node_in;
  job.emplace(std::move(job_in));
  view = node->view.Get();
  session.emplace(TaskOf(*job, *node, *view));
}

void LookupActorState::Perform() {
  for (const delivery::LookupAction& action :
       session->TakeActions(node->clock->Now())) {
    std::visit([this](const auto& what) { Do(what); }, action);
  }
}

void LookupActorState::Do(const delivery::AskLookup& ask) {
  std::vector<ChunkKey> keys;
  keys.reserve(ask.chunks.size());
  for (const int chunk : ask.chunks) keys.push_back(job->chunks[chunk].key);
  self->request(view->live.at(ask.node).storage[ask.partition],
                TimeoutUntil(ask.deadline, node->clock->Now()),
                LookupAtom::value, LookupQuery{job->ns, PackKeys(keys)})
      .then([this, ask](
                const std::vector<LookupItem>& items) { OnItems(ask, items); },
            [this, number = ask.number](const caf::error&) {
              OnNoAnswer(number);
            });
}

void LookupActorState::Do(const delivery::WakeAt& wake) {
  self->delayed_send(self, DelayUntil(wake.at, node->clock->Now()),
                     TickAtom::value);
}

void LookupActorState::Do(const delivery::AnswerLookup& answer) {
  job->reply(answer.results);
  self->quit();
}

void LookupActorState::OnItems(const delivery::AskLookup& ask,
                               const std::vector<LookupItem>& items) {
  std::vector<LookupResult> found;
  found.reserve(items.size());
  for (const LookupItem& item : items) {
    found.push_back(item.hit ? FromWire(item, ask.node) : LookupResult());
  }
  session->OnAnswer(ask.number, found);
  Perform();
}

void LookupActorState::OnNoAnswer(int number) {
  session->OnNoAnswer(number);
  Perform();
}

void LookupActorState::Tick() {
  const std::shared_ptr<const ClusterView> newest = node->view.Get();
  session->OnTime(node->clock->Now(), [&](const NodeId& id) {
    return IsStillLive(*view, *newest, id);
  });
  Perform();
}

QueryActor::behavior_type MakeLookupActor(
    QueryActor::stateful_pointer<LookupActorState> self, NodeContext* node,
    LookupJob job) {
  LookupActorState* state = &self->state;
  state->Init(self, node, std::move(job));
  state->Perform();
  return {[state](TickAtom) { state->Tick(); }};
}

}  // namespace kdn::actors
