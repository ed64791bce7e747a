#ifndef KDN_ACTORS_COPY_ACTOR_H_
#define KDN_ACTORS_COPY_ACTOR_H_

#include "actors/messages.h"
#include "actors/node_context.h"

namespace kdn::actors {

// Reads one object of this node and pushes the object to another node.
struct CopyActorState {
  static inline const char* name = "copy";

  caf::result<CopyAnswer> Copy(const CopyQuery& query);
  void OnSent(const SendEnd& end);

  CopyActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  caf::typed_response_promise<CopyAnswer> promise;
};

CopyActor::behavior_type MakeCopyActor(
    CopyActor::stateful_pointer<CopyActorState> self, NodeContext* node);

}  // namespace kdn::actors

#endif  // KDN_ACTORS_COPY_ACTOR_H_
