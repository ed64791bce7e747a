#include "actors/node_actor.h"

#include <unistd.h>

#include <fstream>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/copy_actor.h"
#include "actors/wire.h"
#include "codec/format/object.h"
#include "kv/log.h"
#include "placement/introduction.h"
#include "placement/join.h"

namespace kdn::actors {
namespace {

// Shorter than the time that a person waits for a status.
constexpr auto kCountTimeout = std::chrono::milliseconds(500);
constexpr absl::Duration kVerifyTimeout = absl::Seconds(10);
constexpr auto kTick = std::chrono::milliseconds(20);

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

caf::result<PeerInfo> NodeActorState::Join(const JoinQuery& query) const {
  const placement::Introduction theirs = FromWire(query.introduction);
  const placement::Introduction ours = deps.node->IntroductionTo(theirs.node);
  absl::Status verdict = placement::JudgeAsker(deps.node->self(), theirs.node);
  if (verdict.ok()) verdict = placement::AgreeOnVersion(ours, theirs).status();
  if (!verdict.ok()) {
    LogError("node.join", absl::StrCat("node '", theirs.node.name(),
                                       "' may not join: ", verdict.message()));
    return RefusalOf(verdict);
  }
  PeerInfo info;
  info.introduction = ToWire(ours);
  for (const StorageActor& actor : deps.storage) {
    info.storage.push_back(caf::actor_cast<caf::strong_actor_ptr>(actor));
  }
  return info;
}

const placement::ShardMap::Counts& NodeActorState::CountsOn(
    const ClusterView& view) {
  if (counted != view.parts().map) {
    counted = view.parts().map;
    counts = counted->CountsOf(view.self(), view.copies());
  }
  return counts;
}

MetricValues NodeActorState::OwnMetrics() {
  const NodeContext& node = *deps.node;
  MetricValues values = node.meters().Read();
  values.Merge(node.links.counters());
  if (deps.disk != nullptr) values.Merge(deps.disk->counters());
  const std::shared_ptr<const ClusterView> view = node.view.Get();
  values["epoch"] = view->epoch().value();
  values["shards_primary"] = CountsOn(*view).primary;
  values["shards_held"] = CountsOn(*view).held;
  values["memory_budget_bytes"] = node.options.memory_bytes;
  values["rss_bytes"] = ResidentBytes();
  values["uptime_s"] = static_cast<uint64_t>(
      absl::ToInt64Seconds(node.clock->Now() - deps.started));
  return values;
}

caf::result<NodeReport> NodeActorState::Report() {
  auto promise = self->make_response_promise<NodeReport>();
  auto values = std::make_shared<MetricValues>(OwnMetrics());
  auto waiting = std::make_shared<size_t>(deps.storage.size());
  last_of.resize(deps.storage.size());
  for (size_t i = 0; i < deps.storage.size(); ++i) {
    auto end = [this, promise, values, waiting, i]() mutable {
      values->Merge(last_of[i]);
      if (--*waiting > 0) return;
      promise.deliver(NodeReport{deps.node->self().name(), ToWire(*values)});
    };
    self->request(deps.storage[i], kCountTimeout, CountAtom::value)
        .then(
            [this, i, end](const std::vector<MetricItem>& part) mutable {
              last_of[i] = FromWire(part);
              end();
            },
            // CAF ends an actor that does not handle an error. Peers would then
            // take a node for dead that is only busy.
            [end](const caf::error&) mutable { end(); });
  }
  return promise;
}

caf::result<CopyAnswer> NodeActorState::Copy(const CopyQuery& query) {
  return self->delegate(self->spawn(MakeCopyActor, deps.node), CopyAtom::value,
                        query);
}

void NodeActorState::Suspect(const SuspectQuery& query) {
  const std::optional<ChunkRef> ref = UnpackRef(query.ref);
  if (!ref) return;
  const std::shared_ptr<const ClusterView> view = deps.node->view.Get();
  const StorageActor storage =
      *view->StorageOf(deps.node->self(), view->ShardOf(*ref));
  // The read may come from disk, which verifies the object. The task below
  // verifies the object once more, because memory may hold the damaged copy.
  auto reply = Reply<delivery::PeerService::Held>::To(
      [storage, key = ref->key, version = ObjectVersion(query.version),
       pool =
           &deps.node->pool](absl::StatusOr<delivery::PeerService::Held> held) {
        if (!held.ok() || held->info.version != version) return;
        pool->Post({WorkClass::kBackground, RequesterId(), 0},
                   [storage, key, version, object = std::move(held->object)] {
                     const absl::StatusOr<codec::ObjectIndex> index =
                         codec::ObjectIndex::Parse(object->bytes(),
                                                   object->size());
                     if (index.ok() &&
                         codec::VerifyObject(*index, object->bytes()).ok()) {
                       return;  // the copy is sound: the link damaged it
                     }
                     // A newer node wrote the object: it is not damaged.
                     if (absl::IsUnimplemented(index.status())) return;
                     caf::anon_send(storage, DiscardCall{key, version});
                   });
      });
  self->send(storage, ReadCall{ref->key, query.ns,
                               deps.node->clock->Now() + kVerifyTimeout,
                               std::move(reply)});
}

caf::result<CalibrationList> NodeActorState::Calibrations(
    const CalibrationList& theirs) {
  return self->delegate(deps.node->calibration_actor, CalibAtom::value, theirs);
}

void NodeActorState::Tick() {
  const absl::Time now = deps.node->clock->Now();
  deps.node->passing->gate.Expire(now);
  self->delayed_send(self, kTick, TickAtom::value);
}

NodeActor::behavior_type MakeNodeActor(
    NodeActor::stateful_pointer<NodeActorState> self, NodeActorDeps deps) {
  NodeActorState* state = &self->state;
  state->self = self;
  state->deps = std::move(deps);
  self->delayed_send(self, kTick, TickAtom::value);
  return {
      [state](JoinAtom, const JoinQuery& query) { return state->Join(query); },
      [state](ReportAtom) { return state->Report(); },
      [state](CopyAtom, const CopyQuery& query) { return state->Copy(query); },
      [state](SuspectAtom, const SuspectQuery& query) {
        state->Suspect(query);
      },
      [state](CalibAtom, const CalibrationList& theirs) {
        return state->Calibrations(theirs);
      },
      [state](TickAtom) { state->Tick(); },
  };
}

}  // namespace kdn::actors
