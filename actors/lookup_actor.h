#ifndef KDN_ACTORS_LOOKUP_ACTOR_H_
#define KDN_ACTORS_LOOKUP_ACTOR_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/lookup_session.h"

namespace kdn::actors {

// One lookup of chunks.
struct LookupJob {
  std::vector<ChunkRef> chunks;
  std::string ns;
  absl::Time deadline;
  Reply<std::vector<LookupResult>> reply;
};

// The shell around one delivery::LookupSession: carries events to the session
// and does what the session says.
struct LookupActorState {
  static inline const char* name = "lookup";

  void Init(QueryActor::pointer self, NodeContext* node, LookupJob job);
  // The only place that sends, requests or schedules.
  void Perform();
  void OnItems(const delivery::AskLookup& ask,
               const std::vector<LookupItem>& items);
  void OnNoAnswer(int number);
  void Tick();

  QueryActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<LookupJob> job;
  std::shared_ptr<const ClusterView> view;
  std::optional<delivery::LookupSession> session;

 private:
  void Do(const delivery::AskLookup& ask);
  void Do(const delivery::WakeAt& wake);
  void Do(const delivery::AnswerLookup& answer);
};

QueryActor::behavior_type MakeLookupActor(
    QueryActor::stateful_pointer<LookupActorState> self, NodeContext* node,
    LookupJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::LookupJob)

#endif  // KDN_ACTORS_LOOKUP_ACTOR_H_
