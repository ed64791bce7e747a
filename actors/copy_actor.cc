#include "actors/copy_actor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/wire.h"

namespace kdn::actors {

caf::result<CopyAnswer> CopyActorState::Copy(const CopyQuery& query) {
  promise = self->make_response_promise<CopyAnswer>();
  const NodeId to(query.to);
  auto end = [actor = caf::actor_cast<CopyActor>(self),
              to](absl::StatusOr<delivery::PushReceipt> result) {
    caf::anon_send(actor, SendEnd{to, std::move(result)});
  };
  const std::optional<ChunkRef> ref = UnpackRef(query.ref);
  const std::shared_ptr<const ClusterView> view = node->view.Get();
  if (!ref || query.durability > 2) {
    end(absl::InvalidArgumentError(
        "the copy order names no chunk, or an unknown durability"));
    return promise;
  }
  const absl::Time now = node->clock->Now();
  const absl::Time deadline = now + absl::Microseconds(query.timeout_us);
  delivery::PushRequest push{to,
                             *ref,
                             nullptr,
                             static_cast<Durability>(query.durability),
                             query.ttl_us > 0
                                 ? now + absl::Microseconds(query.ttl_us)
                                 : absl::InfinitePast(),
                             deadline};
  auto reply = Reply<delivery::PeerService::Held>::To(
      [transport = node->transport, push = std::move(push),
       version = ObjectVersion(query.version),
       end](absl::StatusOr<delivery::PeerService::Held> held) mutable {
        if (!held.ok()) return end(held.status());
        if (held->info.version != version) {
          return end(absl::FailedPreconditionError(
              "another version of the chunk has replaced the version to copy"));
        }
        push.object = std::move(held->object);
        transport->Push(std::move(push), std::move(end));
      });
  self->send(*view->StorageOf(node->self(), view->ShardOf(*ref)),
             ReadCall{ref->key, query.ns, deadline, std::move(reply)});
  return promise;
}

void CopyActorState::OnSent(const SendEnd& end) {
  promise.deliver(ToWire(end.result));
  self->quit();
}

CopyActor::behavior_type MakeCopyActor(
    CopyActor::stateful_pointer<CopyActorState> self, NodeContext* node) {
  CopyActorState* state = &self->state;
  state->self = self;
  state->node = node;
  return {
      [state](CopyAtom, const CopyQuery& query) { return state->Copy(query); },
      [state](const SendEnd& end) { state->OnSent(end); },
  };
}

}  // namespace kdn::actors
