#include "actors/node_actor.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <utility>

#include "actors/copy_actor.h"
#include "actors/wire.h"
#include "codec/format/object.h"

namespace kdn::actors {
namespace {

constexpr auto kCountTimeout = std::chrono::seconds(2);
constexpr absl::Duration kVerifyTimeout = absl::Seconds(10);
constexpr auto kTick = std::chrono::milliseconds(20);

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

void AddTo(storage::PartitionCounters& sum,
           const storage::PartitionCounters& part) {
  using C = storage::PartitionCounters;
  for (uint64_t C::*field :
       {&C::lookups, &C::hits_memory, &C::hits_disk, &C::misses, &C::failures,
        &C::commits, &C::commits_existed, &C::evictions, &C::evictions_lost,
        &C::damaged, &C::removed, &C::disk_write_failures, &C::objects,
        &C::memory_objects, &C::memory_bytes, &C::disk_bytes, &C::leases}) {
    sum.*field += part.*field;
  }
}

}  // namespace

PeerInfo NodeActorState::Join(const std::string& peer) const {
  spdlog::debug("{} asks to join", peer);
  PeerInfo info;
  info.id = deps.node->self().name();
  for (const StorageActor& actor : deps.storage) {
    info.storage.push_back(caf::actor_cast<caf::strong_actor_ptr>(actor));
  }
  return info;
}

delivery::NodeStatus NodeActorState::OwnStatus() const {
  NodeContext& node = *deps.node;
  delivery::NodeStatus s;
  s.id = node.self();
  const std::shared_ptr<const ClusterView> view = node.view.Get();
  s.epoch = view->epoch.value();
  const placement::ShardMap::Counts counts =
      view->map->CountsOf(node.self(), node.options.replicas);
  s.shards_primary = counts.primary;
  s.shards_held = counts.held;
  if (deps.disk != nullptr) s.disk = deps.disk->counters();
  const DeliveryCounters& c = node.counters;
  s.stores = c.stores;
  s.retrieves = c.retrieves;
  s.chunks_hit = c.chunks_hit;
  s.chunks_missed = c.chunks_missed;
  s.chunks_failed = c.chunks_failed;
  s.chunks_recomputed = c.chunks_recomputed;
  s.rate = node.links.counters();
  s.peer_bytes_in = node.transport->traffic().in;
  s.peer_bytes_out = node.transport->traffic().out;
  s.engine_bytes_in = c.engine_bytes_in;
  s.engine_bytes_out = c.engine_bytes_out;
  s.memory_budget_bytes = node.options.memory_bytes;
  s.rss_bytes = ResidentBytes();
  s.uptime_s = static_cast<uint64_t>(
      absl::ToInt64Seconds(node.clock->Now() - deps.started));
  return s;
}

caf::result<NodeReport> NodeActorState::Report() {
  auto promise = self->make_response_promise<NodeReport>();
  auto status = std::make_shared<delivery::NodeStatus>(OwnStatus());
  auto waiting = std::make_shared<size_t>(deps.storage.size());
  for (const StorageActor& actor : deps.storage) {
    self->request(actor, kCountTimeout, CountAtom::value)
        .then(
            [promise, status,
             waiting](const storage::PartitionCounters& counters) mutable {
              AddTo(status->store, counters);
              if (--*waiting == 0) promise.deliver(ToWire(*status));
            },
            // Unhandled, the error would end this actor, and peers would take
            // a node that is only busy for dead.
            [promise](const caf::error& busy) mutable {
              if (promise.pending()) promise.deliver(busy);
            });
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
  // What has to come from disk was verified on its way.
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
                       return;  // damaged on its way
                     }
                     // Of a newer node.
                     if (absl::IsUnimplemented(index.status())) return;
                     caf::anon_send(storage, DiscardCall{key, version});
                   });
      });
  self->send(storage, ReadCall{ref->key, query.ns,
                               deps.node->clock->Now() + kVerifyTimeout,
                               std::move(reply)});
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
      [state](JoinAtom, const std::string& peer) { return state->Join(peer); },
      [state](ReportAtom) { return state->Report(); },
      [state](CopyAtom, const CopyQuery& query) { return state->Copy(query); },
      [state](SuspectAtom, const SuspectQuery& query) {
        state->Suspect(query);
      },
      [state](TickAtom) { state->Tick(); },
  };
}

}  // namespace kdn::actors
