#include "actors/store_actor.h"

#include <cstring>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "actors/delay.h"
#include "actors/wire.h"
#include "kv/check.h"

namespace kdn::actors {
namespace {

using Block = std::shared_ptr<storage::ArenaBlock>;

delivery::StoreTask TaskOf(const StoreJob& job, const NodeContext& node,
                           const ClusterView& view) {
  return delivery::StoreTask{
      .self = node.self(),
      .key = job.ref.key,
      .version = job.info.version,
      .bytes = job.info.bytes,
      .built = job.built,
      .owners = view.OwnersOf(job.ref, view.walk_depth()),
      .copies = view.copies(),
      .durability = job.durability,
      .expires = job.expires,
      .deadline = job.deadline};
}

}  // namespace

void StoreActorState::Init(StoreActor::pointer self_in, NodeContext* node_in,
                           StoreJob job_in) {
  self = self_in;
  node = node_in;
  job.emplace(std::move(job_in));
  view = node->view.Get();
  session.emplace(TaskOf(*job, *node, *view));
}

void StoreActorState::Perform() {
  for (const delivery::StoreAction& action :
       session->TakeActions(node->clock->Now())) {
    std::visit([this](const auto& what) { Do(what); }, action);
  }
}

void StoreActorState::Do(const delivery::AwaitDeadline& deadline) {
  self->delayed_send(self, DelayUntil(deadline.at, node->clock->Now()),
                     DeadlineAtom::value);
}

void StoreActorState::Do(const delivery::AnswerStore& answer) {
  if (answer.receipt.ok()) node->meters().Add("stores");
  job->reply(answer.receipt);
}

void StoreActorState::Do(const delivery::StoreIsOver&) { self->quit(); }

void StoreActorState::Do(const delivery::CommitHere& commit) {
  auto reply = Reply<delivery::PushReceipt>::To(
      [to = caf::actor_cast<StoreActor>(self),
       here = node->self()](absl::StatusOr<delivery::PushReceipt> result) {
        caf::anon_send(to, SendEnd{here, std::move(result)});
      });
  const StorageActor& storage = *view->StorageOf(node->self(), job->info.shard);
  CommitCall call{job->info,    job->block,    job->durability,
                  job->expires, job->deadline, std::move(reply)};
  if (commit.copy_until) {
    CommitCopy(storage, *commit.copy_until, std::move(call));
  } else {
    self->send(storage, std::move(call));
  }
}

void StoreActorState::CommitCopy(const StorageActor& storage,
                                 absl::Time room_deadline, CommitCall commit) {
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
  self->send(storage, ReserveCall{bytes, room_deadline, std::move(reply)});
}

void StoreActorState::Do(const delivery::PushTo& push) {
  node->transport->Push(
      delivery::PushRequest{.peer = push.peer,
                            .ref = job->ref,
                            .object = job->block,
                            .durability = job->durability,
                            .expires = job->expires,
                            .deadline = push.deadline,
                            .requester = RequesterId(job->session.value())},
      [to = caf::actor_cast<StoreActor>(self),
       peer = push.peer](absl::StatusOr<delivery::PushReceipt> result) {
        caf::anon_send(to, SendEnd{peer, std::move(result)});
      });
}

void StoreActorState::Do(const delivery::CopyFrom& copy) {
  const auto winner = view->live.find(copy.winner);
  KDN_CHECK(winner != view->live.end(),
            "the winner is a node that was sent to");
  const std::chrono::microseconds timeout =
      TimeoutUntil(copy.deadline, node->clock->Now());
  self->request(winner->second.node, timeout, CopyAtom::value,
                CopyQuery{job->info.ns, PackRef(job->ref), copy.version.value(),
                          copy.to.name(), static_cast<uint8_t>(job->durability),
                          absl::ToInt64Microseconds(copy.ttl), timeout.count()})
      .then(
          [this, to = copy.to](const CopyAnswer& answer) {
            OnSent(SendEnd{to, FromWire(answer)});
          },
          [this, to = copy.to, from = copy.winner](const caf::error&) {
            OnSent(SendEnd{to, absl::UnavailableError(absl::StrCat(
                                   from.name(), " did not send its copy on"))});
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
