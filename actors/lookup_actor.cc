#include "actors/lookup_actor.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "actors/wire.h"

namespace kdn::actors {
namespace {

// How soon a lookup notices that a node it waits for has died.
constexpr auto kWatch = std::chrono::milliseconds(100);

std::vector<ChunkKey> KeysOf(const std::vector<ChunkRef>& chunks,
                             const std::vector<int>& items) {
  std::vector<ChunkKey> keys;
  keys.reserve(items.size());
  for (int item : items) keys.push_back(chunks[item].key);
  return keys;
}

}  // namespace

void LookupActorState::Init(QueryActor::pointer self_in, NodeContext* node_in,
                            LookupJob job_in) {
  self = self_in;
  node = node_in;
  job.emplace(std::move(job_in));
  view = node->view.Get();
  std::vector<std::vector<NodeId>> orders;
  orders.reserve(job->chunks.size());
  for (const ChunkRef& ref : job->chunks) {
    orders.push_back(
        delivery::ReadOrder(view->OwnersOf(ref, node->walk_depth()),
                            node->self(), node->options.replicas));
  }
  walk.emplace(std::move(orders));
  results.resize(job->chunks.size());
}

void LookupActorState::Perform() {
  for (;;) {
    const std::vector<delivery::Ask> asks = walk->TakeAsks();
    if (asks.empty()) break;
    for (const delivery::Ask& ask : asks) {
      std::map<const StorageActor*, std::vector<int>> by_actor;
      for (int item : ask.items) {
        const ShardId shard = view->ShardOf(job->chunks[item]);
        by_actor[view->StorageOf(ask.node, shard)].push_back(item);
      }
      for (auto& [storage, items] : by_actor) {
        if (storage == nullptr) {
          for (int item : items) {
            walk->MoveOn(item, absl::UnavailableError("node is gone"));
          }
        } else {
          Send(ask.node, *storage, std::move(items));
        }
      }
    }
  }
  if (!walk->done()) return;
  job->reply(std::move(results));
  self->quit();
}

void LookupActorState::Send(const NodeId& owner, const StorageActor& storage,
                            std::vector<int> items) {
  const absl::Duration left = job->deadline - node->clock->Now();
  self->request(storage,
                std::chrono::microseconds(
                    std::max<int64_t>(absl::ToInt64Microseconds(left), 1)),
                LookupAtom::value,
                LookupQuery{job->ns, PackKeys(KeysOf(job->chunks, items))})
      .then(
          [this, owner, items](const std::vector<LookupItem>& found) {
            OnItems(owner, items, found);
          },
          [this, owner, items](const caf::error&) {
            MoveOn(owner, items,
                   absl::UnavailableError(owner.name() + " does not answer"));
          });
}

void LookupActorState::OnItems(const NodeId& owner,
                               const std::vector<int>& items,
                               const std::vector<LookupItem>& found) {
  if (found.size() != items.size()) {
    return MoveOn(owner, items,
                  absl::InternalError(owner.name() + " answered too little"));
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const int item = items[i];
    if (!walk->asked(item) || walk->node(item) != owner) continue;
    if (found[i].hit) {
      results[item] = FromWire(found[i], owner);
      walk->Found(item);
    } else {
      walk->MoveOn(item, absl::NotFoundError("not there"));
    }
  }
  Perform();
}

void LookupActorState::MoveOn(const NodeId& owner,
                              const std::vector<int>& items,
                              const absl::Status& why) {
  for (int item : items) {
    if (walk->asked(item) && walk->node(item) == owner) {
      walk->MoveOn(item, why);
    }
  }
  Perform();
}

void LookupActorState::Tick() {
  const absl::Time now = node->clock->Now();
  if (now >= job->deadline) {
    walk->Abandon(absl::DeadlineExceededError("the lookup's deadline passed"));
    return Perform();
  }
  const std::shared_ptr<const ClusterView> newest = node->view.Get();
  std::map<NodeId, std::vector<int>> gone;
  for (size_t i = 0; i < results.size(); ++i) {
    const int item = static_cast<int>(i);
    if (walk->asked(item) && !newest->live.contains(walk->node(item))) {
      gone[walk->node(item)].push_back(item);
    }
  }
  self->delayed_send(
      self,
      std::min<std::chrono::microseconds>(
          kWatch, std::chrono::microseconds(absl::ToInt64Microseconds(
                      job->deadline - now + absl::Microseconds(1)))),
      TickAtom::value);
  for (const auto& [owner, items] : gone) {
    MoveOn(owner, items, absl::UnavailableError(owner.name() + " died"));
  }
}

QueryActor::behavior_type MakeLookupActor(
    QueryActor::stateful_pointer<LookupActorState> self, NodeContext* node,
    LookupJob job) {
  LookupActorState* state = &self->state;
  state->Init(self, node, std::move(job));
  state->Perform();
  self->send(self, TickAtom::value);
  return {[state](TickAtom) { state->Tick(); }};
}

}  // namespace kdn::actors
