#ifndef KDN_ACTORS_RETRIEVE_ACTOR_H_
#define KDN_ACTORS_RETRIEVE_ACTOR_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/fetch_actions.h"
#include "delivery/fetch_session.h"
#include "transfer/chunk_decode.h"

namespace kdn::actors {

// One retrieve, and the callback that gets its outcomes.
struct RetrieveJob {
  // A retrieve that is made again, for chunks whose calibration was missing.
  struct Again {
    std::vector<ChunkOutcome> outcomes;  // of the first time, for all chunks
    std::set<int> chunks;                // to retrieve again
  };
  std::shared_ptr<transfer::RetrieveContext> context;
  std::shared_ptr<delivery::Done<std::vector<ChunkOutcome>>> done;
  std::shared_ptr<const Again> again = nullptr;  // null: the first time
};

// The shell around one delivery::FetchSession: carries events to the session
// and does what the session says.
struct RetrieveActorState {
  static inline const char* name = "retrieve";

  void Init(RetrieveActor::pointer self, NodeContext* node, RetrieveJob job);
  // The only place that sends, requests or schedules.
  void Perform();
  void OnSize(const HitSize& size);
  void OnAttempt(const AttemptEnd& end);
  void OnWindow(const WindowGrant& grant);
  void OnCancel();
  void OnDeadline();

  RetrieveActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  RetrieveJob job;
  std::shared_ptr<const ClusterView> view;
  std::optional<delivery::FetchSession> session;
  RequesterId requester;
  // The transport's ids of the fetches, by the session's number of the fetch.
  absl::flat_hash_map<int, delivery::FetchId> fetches;
  AdmissionId window_request;            // of the last AskWindow
  transfer::AdmissionGate::Pass window;  // held until the retrieve is over
  // The calibrations that this node lacked, by chunk.
  std::map<int, codec::CalibrationId> missing;
  // The chunks of which a layer was announced: they are not retrieved again,
  // because the second time another version could come.
  std::set<int> announced;

 private:
  void Do(const delivery::ReadHere& read);
  void Do(const delivery::FetchFrom& fetch);
  void Do(const delivery::StopFetch& stop);
  void Do(const delivery::AskWindow& ask);
  void Do(const delivery::WithdrawWindow& withdraw);
  void Do(const delivery::TellSuspect& suspect);
  void Do(const delivery::DiscardHere& damaged);
  void Do(const delivery::AwaitDeadline& deadline);
  void Do(const delivery::AnswerRetrieve& answer);
  const delivery::RetrieveRequest& request() const {
    return job.context->request;
  }
  const StorageActor& StorageHere(const ChunkRef& ref) const;
  // Tells the session that the request is cancelled, if it is. Events call this
  // first, because they may overtake CancelAtom.
  void NoticeCancellation();
  void Count(const std::vector<ChunkOutcome>& outcomes) const;
  // Asks the cluster for the calibrations that were missing, and retrieves
  // their chunks again once they have come. Other actors do that.
  void RetrieveAgain(std::vector<ChunkOutcome> outcomes, std::set<int> chunks);
};

RetrieveActor::behavior_type MakeRetrieveActor(
    RetrieveActor::stateful_pointer<RetrieveActorState> self, NodeContext* node,
    RetrieveJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::RetrieveJob)

#endif  // KDN_ACTORS_RETRIEVE_ACTOR_H_
