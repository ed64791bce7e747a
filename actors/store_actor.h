#ifndef KDN_ACTORS_STORE_ACTOR_H_
#define KDN_ACTORS_STORE_ACTOR_H_

#include <memory>
#include <optional>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/store_actions.h"
#include "delivery/store_plan.h"
#include "delivery/store_session.h"

namespace kdn::actors {

// One store: an encoded object that goes to its owners.
struct StoreJob {
  ChunkRef ref;
  storage::ObjectInfo info;
  std::shared_ptr<storage::ArenaBlock> block;
  // Which memory the block lies in.
  delivery::BuildPlace built = delivery::BuildPlace::kPartition;
  Durability durability = Durability::kReplicated;
  absl::Time expires = absl::InfinitePast();  // TTL; InfinitePast: none
  absl::Time deadline;
  SessionId session;  // sessions take turns where connections are short
  Reply<StoreReceipt> reply;
};

// The shell around one delivery::StoreSession: carries events to the session
// and does what the session says.
struct StoreActorState {
  static inline const char* name = "store";

  void Init(StoreActor::pointer self, NodeContext* node, StoreJob job);
  // The only place that sends, requests or schedules.
  void Perform();
  void OnSent(const SendEnd& end);
  void OnDeadline();

  StoreActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<StoreJob> job;
  std::shared_ptr<const ClusterView> view;
  std::optional<delivery::StoreSession> session;

 private:
  void Do(const delivery::CommitHere& commit);
  void Do(const delivery::PushTo& push);
  void Do(const delivery::CopyFrom& copy);
  void Do(const delivery::AwaitDeadline& deadline);
  void Do(const delivery::AnswerStore& answer);
  void Do(const delivery::StoreIsOver& over);
  // Copies the object into the partition's memory and commits the copy.
  // `room_deadline` ends the wait for that memory.
  void CommitCopy(const StorageActor& storage, absl::Time room_deadline,
                  CommitCall commit);
};

StoreActor::behavior_type MakeStoreActor(
    StoreActor::stateful_pointer<StoreActorState> self, NodeContext* node,
    StoreJob job);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::StoreJob)

#endif  // KDN_ACTORS_STORE_ACTOR_H_
