#ifndef KDN_ACTORS_RETRIEVE_ACTOR_H_
#define KDN_ACTORS_RETRIEVE_ACTOR_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/fetch_session.h"
#include "transfer/chunk_decode.h"

namespace kdn::actors {

// What a retrieve answers to.
struct RetrieveJob {
  std::shared_ptr<transfer::RetrieveContext> context;
  std::shared_ptr<delivery::Done<std::vector<ChunkOutcome>>> done;
};

// The shell around one delivery::FetchSession.
struct RetrieveActorState {
  static inline const char* name = "retrieve";

  void Init(RetrieveActor::pointer self, NodeContext* node, RetrieveJob job);
  void Perform();
  void ReadHere(int chunk);
  // In as many fetches as it takes.
  void FetchFrom(const delivery::Ask& ask);
  // Some of the chunks that an ask is for.
  void Fetch(const NodeId& peer, absl::Span<const int> chunks, size_t of_ask);
  void OnSize(const HitSize& size);
  void OnAttempt(const AttemptEnd& end);
  // A copy failed its checksum.
  void OnDamaged(const AttemptEnd& end);
  void OnWindow(const WindowGrant& grant);
  void AbandonCancelled();
  void OnDeadline();
  void Answer();

  RetrieveActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  RetrieveJob job;
  std::shared_ptr<const ClusterView> view;
  std::optional<delivery::FetchSession> session;
  uint64_t work_request = 0;
  bool window_asked = false;
  transfer::AdmissionGate::Pass window;  // held until the retrieve is over
};

RetrieveActor::behavior_type MakeRetrieveActor(
    RetrieveActor::stateful_pointer<RetrieveActorState> self, NodeContext* node,
    RetrieveJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::RetrieveJob)

#endif  // KDN_ACTORS_RETRIEVE_ACTOR_H_
