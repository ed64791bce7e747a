#include "actors/store_actor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/wire.h"
#include "kv/check.h"

namespace kdn::actors {
namespace {

using Block = std::shared_ptr<storage::ArenaBlock>;

// One node may take half of what is left, most of it for room: the walk then
// still reaches a node that has some.
absl::Time RoomDeadline(absl::Time now, absl::Time deadline) {
  return now + std::max(deadline - now, absl::ZeroDuration()) / 2;
}

}  // namespace

void StoreActorState::Init(StoreActor::pointer self_in, NodeContext* node_in,
                           StoreJob job_in) {
  self = self_in;
  node = node_in;
  job.emplace(std::move(job_in));
  view = node->view.Get();
  // Never more copies than there are nodes to hold them.
  const int replicas = std::min<int>(
      node->options.replicas, static_cast<int>(node->options.members.size()));
  session.emplace(job->info.version,
                  view->OwnersOf(job->ref, node->walk_depth()), replicas,
                  job->durability);
  self->delayed_send(
      self,
      std::chrono::microseconds(absl::ToInt64Microseconds(
          std::max(job->deadline - node->clock->Now(), absl::Duration()))),
      DeadlineAtom::value);
}

void StoreActorState::Perform() {
  for (const NodeId& target : session->TakeSends()) {
    if (const NodeId* winner = session->winner(); winner != nullptr) {
      CopyFrom(*winner, target);
    } else if (target == node->self()) {
      CommitHere();
    } else {
      PushTo(target);
    }
  }
  absl::StatusOr<StoreReceipt> answer;
  if (session->TakeAnswer(&answer)) {
    if (answer.ok()) {
      answer->key = job->ref.key;
      answer->bytes = job->info.bytes;
      node->meters().Add("stores");
    }
    job->reply(std::move(answer));
  }
  if (session->done()) self->quit();
}

void StoreActorState::CommitHere() {
  auto reply = Reply<delivery::PushReceipt>::To(
      [to = caf::actor_cast<StoreActor>(self),
       here = node->self()](absl::StatusOr<delivery::PushReceipt> result) {
        caf::anon_send(to, SendEnd{here, std::move(result)});
      });
  const StorageActor& storage = *view->StorageOf(node->self(), job->info.shard);
  CommitCall commit{job->info,    job->block,    job->durability,
                    job->expires, job->deadline, std::move(reply)};
  if (job->in_passing) return CommitCopy(storage, std::move(commit));
  self->send(storage, std::move(commit));
}

// Scratch memory that became a partition's would never be given back: evicting
// is the partition's business, and scratch has no say in it.
void StoreActorState::CommitCopy(const StorageActor& storage,
                                 CommitCall commit) {
  const size_t bytes = commit.block->size();
  auto reply = Reply<Block>::To(
      [storage, pool = &node->pool,
       commit = std::move(commit)](absl::StatusOr<Block> room) {
        if (!room.ok()) return commit.reply(room.status());
        pool->Post({WorkClass::kWrite, pool->NextRequester(), 0},
                   [storage, room = *std::move(room), commit]() mutable {
                     std::memcpy(room->bytes().data(),
                                 commit.block->bytes().data(), room->size());
                     commit.block = std::move(room);
                     caf::anon_send(storage, std::move(commit));
                   });
      });
  self->send(storage,
             ReserveCall{bytes, RoomDeadline(node->clock->Now(), job->deadline),
                         std::move(reply)});
}

void StoreActorState::PushTo(const NodeId& peer) {
  node->transport->Push(
      delivery::PushRequest{peer, job->ref, job->block, job->durability,
                            job->expires,
                            RoomDeadline(node->clock->Now(), job->deadline)},
      [to = caf::actor_cast<StoreActor>(self),
       peer](absl::StatusOr<delivery::PushReceipt> result) {
        caf::anon_send(to, SendEnd{peer, std::move(result)});
      });
}

void StoreActorState::CopyFrom(const NodeId& winner, const NodeId& target) {
  const auto peer = view->live.find(winner);
  KDN_CHECK(peer != view->live.end(), "who holds an object was sent to");
  const absl::Time now = node->clock->Now();
  const int64_t left_us = std::max<int64_t>(
      absl::ToInt64Microseconds(RoomDeadline(now, job->deadline) - now), 1);
  const int64_t ttl_us = absl::ToInt64Microseconds(
      std::max(job->expires - now, absl::ZeroDuration()));
  self->request(
          peer->second.node, std::chrono::microseconds(left_us),
          CopyAtom::value,
          CopyQuery{job->info.ns, PackRef(job->ref),
                    session->winner_version().value(), target.name(),
                    static_cast<uint8_t>(job->durability), ttl_us, left_us})
      .then(
          [this, target](const CopyAnswer& answer) {
            OnSent(SendEnd{target, FromWire(answer)});
          },
          [this, target, winner](const caf::error&) {
            OnSent(SendEnd{target, absl::UnavailableError(absl::StrCat(
                                       winner.name(), " hands nothing on"))});
          });
}

void StoreActorState::OnSent(const SendEnd& end) {
  session->OnSent(end.node, end.result);
  Perform();
}

void StoreActorState::OnDeadline() {
  session->OnDeadline();
  Perform();
}

StoreActor::behavior_type MakeStoreActor(
    StoreActor::stateful_pointer<StoreActorState> self, NodeContext* node,
    StoreJob job) {
  StoreActorState* state = &self->state;
  state->Init(self, node, std::move(job));
  state->Perform();
  return {
      [state](const SendEnd& end) { state->OnSent(end); },
      [state](DeadlineAtom) { state->OnDeadline(); },
  };
}

}  // namespace kdn::actors
