#include "actors/lease_actor.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/wire.h"

namespace kdn::actors {
namespace {

// What many owners' answers for one chunk come to. A copy that could not be
// removed still exists, so its refusal must show; one copy pinned is enough to
// keep the chunk.
absl::Status Merge(LeaseOp op, const absl::Status& so_far,
                   const absl::Status& next) {
  if (absl::IsNotFound(so_far)) return next;
  if (absl::IsNotFound(next)) return so_far;
  const bool error_wins = op == LeaseOp::kRemove;
  return so_far.ok() == error_wins ? next : so_far;
}

}  // namespace

void LeaseActorState::Init(QueryActor::pointer self_in, NodeContext* node_in,
                           LeaseJob job_in) {
  self = self_in;
  node = node_in;
  job.emplace(std::move(job_in));
  merged.assign(job->chunks.size(),
                absl::NotFoundError("no node holds the chunk"));
  view = node->view.Get();
  std::map<std::pair<NodeId, const StorageActor*>, std::vector<int>> asks;
  for (size_t i = 0; i < job->chunks.size(); ++i) {
    const ShardId shard = view->ShardOf(job->chunks[i]);
    for (const NodeId& owner :
         view->OwnersOf(job->chunks[i], node->walk_depth())) {
      asks[{owner, view->StorageOf(owner, shard)}].push_back(
          static_cast<int>(i));
    }
  }
  for (auto& [target, items] : asks) {
    if (target.second != nullptr) {
      Send(target.first, *target.second, std::move(items));
    }
  }
}

void LeaseActorState::Send(const NodeId& owner, const StorageActor& storage,
                           std::vector<int> items) {
  std::vector<ChunkKey> keys;
  for (int item : items) keys.push_back(job->chunks[item].key);
  const absl::Time now = node->clock->Now();
  const absl::Duration left = job->deadline - now;
  const absl::Duration ttl = std::max(job->expires - now, absl::ZeroDuration());
  ++unanswered;
  self->request(
          storage,
          std::chrono::microseconds(
              std::max<int64_t>(absl::ToInt64Microseconds(left), 1)),
          LeaseAtom::value,
          LeaseQuery{static_cast<uint8_t>(job->op), job->ns, PackKeys(keys),
                     job->session.value(), absl::ToInt64Microseconds(ttl)})
      .then(
          [this, items](const std::vector<StatusItem>& statuses) {
            OnStatuses(items, statuses);
          },
          [this, items, owner](const caf::error&) {
            OnNoAnswer(items, owner);
          });
}

void LeaseActorState::OnStatuses(const std::vector<int>& items,
                                 const std::vector<StatusItem>& statuses) {
  for (size_t i = 0; i < items.size() && i < statuses.size(); ++i) {
    absl::Status& status = merged[items[i]];
    status = Merge(job->op, status, FromWire(statuses[i]));
  }
  --unanswered;
  AnswerIfDone();
}

void LeaseActorState::OnNoAnswer(const std::vector<int>& items,
                                 const NodeId& owner) {
  for (int item : items) {
    merged[item] =
        Merge(job->op, merged[item],
              absl::UnavailableError(owner.name() + " does not answer"));
  }
  --unanswered;
  AnswerIfDone();
}

void LeaseActorState::AnswerIfDone() {
  if (unanswered > 0) return;
  for (size_t i = 0; job->op == LeaseOp::kRemove && i < merged.size(); ++i) {
    const std::optional<NodeId> away =
        view->AwayOwnerOf(job->chunks[i], node->walk_depth());
    if (!away) continue;
    merged[i] = Merge(job->op, merged[i],
                      absl::UnavailableError(
                          absl::StrCat(away->name(),
                                       " is away and may hold a copy: remove "
                                       "the chunk again when it is back")));
  }
  job->reply(std::move(merged));
  self->quit();
}

void LeaseActorState::Tick() { AnswerIfDone(); }

QueryActor::behavior_type MakeLeaseActor(
    QueryActor::stateful_pointer<LeaseActorState> self, NodeContext* node,
    LeaseJob job) {
  LeaseActorState* state = &self->state;
  state->Init(self, node, std::move(job));
  self->send(self, TickAtom::value);
  return {[state](TickAtom) { state->Tick(); }};
}

}  // namespace kdn::actors
