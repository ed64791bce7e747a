#include "actors/retrieve_actor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "actors/wire.h"
#include "transfer/local_fetch.h"
#include "transfer/remote_fetch.h"

namespace kdn::actors {
namespace {

// Encoded bytes of one retrieve under way from peers at a time: several
// retrieves share the node's scratch memory.
constexpr uint64_t kWindowBytes = 64u << 20;

// A try may take half of what is left, so that a replica still has a chance.
absl::Time AttemptDeadline(absl::Time now, absl::Time deadline) {
  return now + std::max(deadline - now, absl::ZeroDuration()) / 2;
}

}  // namespace

void RetrieveActorState::Init(RetrieveActor::pointer self_in,
                              NodeContext* node_in, RetrieveJob job_in) {
  self = self_in;
  node = node_in;
  job = std::move(job_in);
  view = node->view.Get();
  work_request = node->pool.NextRequest();
  const delivery::RetrieveRequest& request = job.context->request;
  std::vector<std::vector<NodeId>> orders;
  orders.reserve(request.chunks.size());
  for (const delivery::RetrieveChunk& chunk : request.chunks) {
    orders.push_back(
        delivery::ReadOrder(view->OwnersOf(chunk.ref, node->walk_depth()),
                            node->self(), node->options.replicas));
  }
  session.emplace(
      node->self(), std::move(orders), transfer::FetchBytesMax(request),
      std::min(kWindowBytes, node->passing->gate.guaranteed(WorkClass::kRead)));
  self->delayed_send(
      self,
      std::chrono::microseconds(absl::ToInt64Microseconds(
          std::max(request.deadline - node->clock->Now(), absl::Duration()))),
      DeadlineAtom::value);
}

void RetrieveActorState::Perform() {
  for (const delivery::Ask& ask : session->TakeAsks()) {
    if (ask.node == node->self()) {
      for (int chunk : ask.items) ReadHere(chunk);
    } else {
      FetchFrom(ask);
    }
  }
  const uint64_t wanted = session->WindowWanted();
  if (wanted > 0 && !std::exchange(window_asked, true)) {
    const delivery::RetrieveRequest& request = job.context->request;
    node->passing->Request(
        {.amount = wanted,
         .work_class = WorkClass::kRead,
         .requester = RequesterId(request.session.value()),
         .deadline = request.deadline},
        [to = caf::actor_cast<RetrieveActor>(self)](
            absl::StatusOr<transfer::AdmissionGate::Pass> pass) {
          caf::anon_send(to, WindowGrant{std::move(pass)});
        });
  }
  if (session->done()) Answer();
}

void RetrieveActorState::OnWindow(const WindowGrant& grant) {
  if (job.context->request.cancellation->cancelled()) {
    AbandonCancelled();
  } else if (grant.pass.ok()) {
    window = *grant.pass;
    session->OpenWindow();
  } else {
    session->RefuseWindow(grant.pass.status());
  }
  Perform();
}

void RetrieveActorState::ReadHere(int chunk) {
  const auto to = caf::actor_cast<RetrieveActor>(self);
  const NodeId here = node->self();
  auto end = [to, here, chunk](delivery::AttemptResult result) {
    caf::anon_send(to, AttemptEnd{chunk, here, std::move(result)});
  };
  const delivery::RetrieveRequest& request = job.context->request;
  const ChunkRef& ref = request.chunks[chunk].ref;
  auto reply = Reply<delivery::PeerService::Held>::To(
      [end, chunk, context = job.context, pool = &node->pool,
       work = work_request, pinned = session->pinned_version(chunk)](
          absl::StatusOr<delivery::PeerService::Held> held) mutable {
        if (!held.ok()) {
          delivery::AttemptResult result;
          result.status = held.status();
          end(std::move(result));
          return;
        }
        transfer::FetchFromMemory(std::move(context), chunk, *std::move(held),
                                  pinned, pool, work, end);
      });
  self->send(*view->StorageOf(here, view->ShardOf(ref)),
             ReadCall{ref.key, request.ns.name(),
                      AttemptDeadline(node->clock->Now(), request.deadline),
                      std::move(reply)});
}

void RetrieveActorState::FetchFrom(const delivery::Ask& ask) {
  absl::Span<const int> left = ask.items;
  while (!left.empty()) {
    const absl::Span<const int> some =
        left.subspan(0, delivery::kItemsPerFetchMax);
    left.remove_prefix(some.size());
    Fetch(ask.node, some, ask.items.size());
  }
}

void RetrieveActorState::Fetch(const NodeId& peer, absl::Span<const int> chunks,
                               size_t of_ask) {
  const delivery::RetrieveRequest& request = job.context->request;
  const absl::Time now = node->clock->Now();
  const delivery::DeliveryTarget target{
      .bytes_per_second = node->links.BytesPerSecond(peer, now),
      .prefill_tokens_per_second = request.prefill_tokens_per_second,
      .now = now,
      .deadline = AttemptDeadline(now, request.deadline),
      .too_slow = job.context->too_slow,
      .reuse = request.reuse};
  // What is not asked for yet needs its part of the time.
  const size_t all = of_ask + static_cast<size_t>(session->held_back() +
                                                  request.chunks_beside);
  delivery::FetchRequest fetch{
      peer,
      request.ns,
      {},
      request.slice,
      request.accept,
      target.deadline,
      ShareOf(delivery::BudgetFor(target), chunks.size(), all)};
  std::vector<transfer::RemoteFetch::Item> items;
  for (int chunk : chunks) {
    fetch.chunks.push_back(request.chunks[chunk].ref);
    items.push_back({chunk, session->pinned_version(chunk)});
  }
  auto on_size = [to = caf::actor_cast<RetrieveActor>(self)](int chunk,
                                                             uint64_t bytes) {
    caf::anon_send(to, HitSize{chunk, bytes});
  };
  auto on_attempt = [to = caf::actor_cast<RetrieveActor>(self), from = peer](
                        int chunk, delivery::AttemptResult result) {
    caf::anon_send(to, AttemptEnd{chunk, from, std::move(result)});
  };
  node->transport->Fetch(
      std::move(fetch),
      std::make_unique<transfer::RemoteFetch>(
          job.context, std::move(items),
          transfer::RemoteFetch::Link{peer, target, &node->links, node->clock},
          node->passing->arena.get(), &node->pool, work_request,
          std::move(on_size), std::move(on_attempt)));
}

void RetrieveActorState::OnSize(const HitSize& size) {
  session->OnSize(size.chunk, size.bytes);
  Perform();
}

void RetrieveActorState::OnAttempt(const AttemptEnd& end) {
  if (absl::IsDataLoss(end.result.status)) OnDamaged(end);
  session->OnAttempt(end.chunk, end.node, end.result);
  if (job.context->request.cancellation->cancelled()) AbandonCancelled();
  Perform();
}

void RetrieveActorState::OnDamaged(const AttemptEnd& end) {
  const delivery::RetrieveRequest& request = job.context->request;
  const ChunkRef& ref = request.chunks[end.chunk].ref;
  if (end.node == node->self()) {
    self->send(*view->StorageOf(end.node, view->ShardOf(ref)),
               DiscardCall{ref.key, end.result.version});
    return;
  }
  if (end.result.version == ObjectVersion()) return;  // nothing of it came
  // There or on its way: the peer finds out.
  if (const auto peer = view->live.find(end.node); peer != view->live.end()) {
    self->send(peer->second.node, SuspectAtom::value,
               SuspectQuery{request.ns.name(), PackRef(ref),
                            end.result.version.value()});
  }
}

// No other node is asked on behalf of an engine that went away.
void RetrieveActorState::AbandonCancelled() {
  session->Abandon(absl::CancelledError("nobody wants it any more"));
}

void RetrieveActorState::OnDeadline() {
  job.context->request.cancellation->Cancel();
  session->Abandon(
      absl::DeadlineExceededError("the retrieve's deadline passed"));
  if (session->done()) Answer();
}

void RetrieveActorState::Answer() {
  std::vector<ChunkOutcome> outcomes = session->Outcomes();
  DeliveryCounters& counters = node->counters;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    switch (outcomes[i].kind) {
      case OutcomeKind::kHit:
        ++counters.chunks_hit;
        counters.engine_bytes_out +=
            job.context->request.chunks[i].destination.shape().bytes();
        break;
      case OutcomeKind::kMiss:
        ++counters.chunks_missed;
        break;
      case OutcomeKind::kFailed:
        ++counters.chunks_failed;
        break;
      case OutcomeKind::kRecompute:
        ++counters.chunks_recomputed;
        break;
    }
  }
  (*job.done)(std::move(outcomes));
  self->quit();
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
      [state](DeadlineAtom) { state->OnDeadline(); },
  };
}

}  // namespace kdn::actors
