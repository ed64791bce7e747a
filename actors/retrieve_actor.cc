#include "actors/retrieve_actor.h"

#include <utility>
#include <variant>

#include "actors/delay.h"
#include "actors/wire.h"
#include "delivery/read_order.h"
#include "transfer/local_fetch.h"
#include "transfer/remote_fetch.h"

namespace kdn::actors {
namespace {

// The second time, nobody is asked for the chunks that are not retrieved again.
delivery::FetchTask TaskOf(const RetrieveJob& job, const NodeContext& node,
                           const ClusterView& view) {
  const transfer::RetrieveContext& context = *job.context;
  const delivery::RetrieveRequest& request = context.request;
  delivery::FetchTask task{
      .self = node.self(),
      .read_orders = {},
      .chunk_bytes = transfer::FetchBytesMax(request),
      .memory_bytes_max = node.passing->gate.guaranteed(WorkClass::kRead),
      .deadline = request.deadline,
      .prefill_tokens_per_second = request.prefill_tokens_per_second,
      .too_slow = context.too_slow,
      .reuse =
          job.again == nullptr ? request.reuse : delivery::Reuse::kAnyChunk,
      .chunks_beside = request.chunks_beside};
  const delivery::PeerGrades grades = node.health.GradesAt(node.clock->Now());
  task.read_orders.reserve(request.chunks.size());
  for (int i = 0; i < static_cast<int>(request.chunks.size()); ++i) {
    if (job.again != nullptr && job.again->chunks.count(i) == 0) {
      task.read_orders.emplace_back();
      continue;
    }
    task.read_orders.push_back(delivery::ReadOrder(
        view.OwnersOf(request.chunks[i].ref, view.walk_depth()), node.self(),
        view.copies(), grades));
  }
  return task;
}

}  // namespace

void RetrieveActorState::Init(RetrieveActor::pointer self_in,
                              NodeContext* node_in, RetrieveJob job_in) {
  self = self_in;
  node = node_in;
  job = std::move(job_in);
  view = node->view.Get();
  requester = node->pool.NextRequester();
  session.emplace(TaskOf(job, *node, *view));
  request().cancellation->OnCancel([weak = self->address()] {
    if (const auto to = caf::actor_cast<RetrieveActor>(weak)) {
      caf::anon_send(to, CancelAtom::value);
    }
  });
}

void RetrieveActorState::Perform() {
  const absl::Time now = node->clock->Now();
  const auto rate_of = [this, now](const NodeId& peer) {
    return node->links.BytesPerSecond(peer, now);
  };
  for (const delivery::FetchAction& action :
       session->TakeActions(now, rate_of)) {
    std::visit([this](const auto& what) { Do(what); }, action);
  }
}

void RetrieveActorState::Do(const delivery::AwaitDeadline& deadline) {
  self->delayed_send(self, DelayUntil(deadline.at, node->clock->Now()),
                     DeadlineAtom::value);
}

void RetrieveActorState::Do(const delivery::AskWindow& ask) {
  window_request = node->passing->Request(
      {.amount = ask.bytes,
       .work_class = WorkClass::kRead,
       .requester = RequesterId(request().session.value()),
       .deadline = ask.deadline},
      [to = caf::actor_cast<RetrieveActor>(self)](
          absl::StatusOr<transfer::AdmissionGate::Pass> pass) {
        caf::anon_send(to, WindowGrant{std::move(pass)});
      });
}

void RetrieveActorState::Do(const delivery::WithdrawWindow&) {
  node->passing->gate.Withdraw(window_request);
}

void RetrieveActorState::Do(const delivery::ReadHere& read) {
  auto end = [to = caf::actor_cast<RetrieveActor>(self), here = node->self(),
              chunk = read.wanted.chunk](delivery::AttemptResult result) {
    caf::anon_send(to, AttemptEnd{chunk, here, std::move(result)});
  };
  auto reply = Reply<delivery::PeerService::Held>::To(
      [end, wanted = read.wanted, context = job.context, pool = &node->pool,
       work = requester](
          absl::StatusOr<delivery::PeerService::Held> held) mutable {
        if (!held.ok()) {
          delivery::AttemptResult result;
          result.status = held.status();
          end(std::move(result));
          return;
        }
        transfer::FetchFromMemory(std::move(context), wanted.chunk,
                                  *std::move(held), wanted.pinned, pool, work,
                                  end);
      });
  const ChunkRef& ref = request().chunks[read.wanted.chunk].ref;
  self->send(StorageHere(ref), ReadCall{ref.key, request().ns.name(),
                                        read.deadline, std::move(reply)});
}

void RetrieveActorState::Do(const delivery::FetchFrom& fetch) {
  delivery::FetchRequest asked{
      fetch.peer,       request().ns,          {},          request().slice,
      request().accept, fetch.target.deadline, fetch.budget};
  asked.requester = requester;
  for (const delivery::ChunkWanted& wanted : fetch.wanted) {
    asked.chunks.push_back(request().chunks[wanted.chunk].ref);
  }
  const auto to = caf::actor_cast<RetrieveActor>(self);
  auto on_size = [to](int chunk, uint64_t bytes) {
    caf::anon_send(to, HitSize{chunk, bytes});
  };
  auto on_attempt = [to, from = fetch.peer](int chunk,
                                            delivery::AttemptResult result) {
    caf::anon_send(to, AttemptEnd{chunk, from, std::move(result)});
  };
  fetches[fetch.fetch] = node->transport->Fetch(
      std::move(asked),
      std::make_unique<transfer::RemoteFetch>(
          job.context, fetch.wanted,
          transfer::RemoteFetch::Link{fetch.peer, fetch.target, &node->links,
                                      &node->health, node->clock},
          node->passing->arena.get(), &node->pool, requester,
          std::move(on_size), std::move(on_attempt)));
}

void RetrieveActorState::Do(const delivery::StopFetch& stop) {
  node->transport->CancelFetch(fetches.at(stop.fetch));
}

void RetrieveActorState::Do(const delivery::TellSuspect& suspect) {
  const auto peer = view->live.find(suspect.peer);
  if (peer == view->live.end()) return;
  self->send(peer->second.node, SuspectAtom::value,
             SuspectQuery{request().ns.name(),
                          PackRef(request().chunks[suspect.chunk].ref),
                          suspect.version.value()});
}

void RetrieveActorState::Do(const delivery::DiscardHere& damaged) {
  const ChunkRef& ref = request().chunks[damaged.chunk].ref;
  self->send(StorageHere(ref), DiscardCall{ref.key, damaged.version});
}

void RetrieveActorState::Do(const delivery::AnswerRetrieve& answer) {
  std::vector<ChunkOutcome> outcomes = answer.outcomes;
  if (job.again != nullptr) {
    outcomes = job.again->outcomes;
    for (const int chunk : job.again->chunks) {
      outcomes[chunk] = answer.outcomes[chunk];
    }
  }
  std::set<int> lacking;
  for (const auto& [chunk, id] : missing) {
    if (outcomes[chunk].kind == OutcomeKind::kFailed &&
        announced.count(chunk) == 0) {
      lacking.insert(chunk);
    }
  }
  if (job.again == nullptr && !lacking.empty() && node->calibration_actor &&
      !request().cancellation->cancelled()) {
    RetrieveAgain(std::move(outcomes), std::move(lacking));
  } else {
    Count(outcomes);
    (*job.done)(std::move(outcomes));
  }
  self->quit();
}

void RetrieveActorState::RetrieveAgain(std::vector<ChunkOutcome> outcomes,
                                       std::set<int> chunks) {
  std::set<codec::CalibrationId> ids;
  for (const int chunk : chunks) ids.insert(missing.at(chunk));
  RetrieveJob next = job;
  next.again = std::make_shared<const RetrieveJob::Again>(
      RetrieveJob::Again{std::move(outcomes), std::move(chunks)});
  // Runs when the last question is answered, whatever the answers are: a chunk
  // whose calibration has not come fails again, with the same reason.
  auto go_on = std::shared_ptr<void>(
      nullptr, [next = std::move(next), node = node, system = &self->system()](
                   void*) { system->spawn(MakeRetrieveActor, node, next); });
  for (const codec::CalibrationId& id : ids) {
    self->send(node->calibration_actor,
               NeedCalibrationCall{
                   id, request().deadline,
                   Reply<bool>::To([go_on](absl::StatusOr<bool>) mutable {
                     go_on.reset();
                   })});
  }
}

void RetrieveActorState::OnWindow(const WindowGrant& grant) {
  NoticeCancellation();
  if (grant.pass.ok()) {
    window = *grant.pass;
    session->OpenWindow();
  } else {
    session->RefuseWindow(grant.pass.status());
  }
  Perform();
}

void RetrieveActorState::OnSize(const HitSize& size) {
  session->OnSize(size.chunk, size.bytes);
  Perform();
}

void RetrieveActorState::OnAttempt(const AttemptEnd& end) {
  if (const auto id = codec::MissingCalibrationIn(end.result.status)) {
    missing[end.chunk] = *id;
  }
  if (end.result.announced) announced.insert(end.chunk);
  session->OnAttempt(end.chunk, end.node, end.result);
  NoticeCancellation();
  Perform();
}

void RetrieveActorState::OnDeadline() {
  request().cancellation->Cancel();
  session->OnDeadline();
  Perform();
}

void RetrieveActorState::OnCancel() {
  NoticeCancellation();
  Perform();
}

void RetrieveActorState::NoticeCancellation() {
  if (request().cancellation->cancelled()) session->OnCancelled();
}

const StorageActor& RetrieveActorState::StorageHere(const ChunkRef& ref) const {
  return *view->StorageOf(node->self(), view->ShardOf(ref));
}

void RetrieveActorState::Count(
    const std::vector<ChunkOutcome>& outcomes) const {
  Meters& meters = node->meters();
  for (size_t i = 0; i < outcomes.size(); ++i) {
    switch (outcomes[i].kind) {
      case OutcomeKind::kHit:
        meters.Add("chunks_hit");
        meters.Add("engine_bytes_out",
                   request().chunks[i].destination.shape().bytes());
        break;
      case OutcomeKind::kMiss:
        meters.Add("chunks_missed");
        break;
      case OutcomeKind::kFailed:
        meters.Add("chunks_failed");
        break;
      case OutcomeKind::kRecompute:
        meters.Add("chunks_recomputed");
        break;
    }
  }
}

RetrieveActor::behavior_type MakeRetrieveActor(
    RetrieveActor::stateful_pointer<RetrieveActorState> self, NodeContext* node,
    RetrieveJob job) {
  RetrieveActorState* state = &self->state;
  state->Init(self, node, std::move(job));
  state->Perform();
  return {
      [state](const AttemptEnd& end) { state->OnAttempt(end); },
      [state](const HitSize& size) { state->OnSize(size); },
      [state](const WindowGrant& grant) { state->OnWindow(grant); },
      [state](CancelAtom) { state->OnCancel(); },
      [state](DeadlineAtom) { state->OnDeadline(); },
  };
}

}  // namespace kdn::actors
