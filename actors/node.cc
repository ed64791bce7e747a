#include "actors/node.h"

#include <algorithm>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "actors/calibration_actor.h"
#include "actors/node_actor.h"
#include "actors/node_context.h"
#include "actors/node_services.h"
#include "actors/peer_network.h"
#include "actors/placement_actor.h"
#include "actors/storage_actor.h"
#include "kv/log.h"
#include "placement/membership.h"

namespace kdn::actors {
namespace {

// CAF notices a silent peer only when both heartbeat and timeout are set. The
// sharing scheduler without extra I/O workers halves CAF's round trip.
class SystemConfig : public caf::actor_system_config {
 public:
  explicit SystemConfig(const NodeOptions& options) {
    load<caf::io::middleman>();
    add_message_types<caf::id_block::kdn>();
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", size_t{2});
    set("middleman.workers", size_t{0});
    set("middleman.heartbeat-interval", ToTimespan(options.heartbeat));
    set("middleman.connection-timeout", ToTimespan(options.peer_timeout));
  }

 private:
  static caf::timespan ToTimespan(absl::Duration duration) {
    return caf::timespan(absl::ToInt64Nanoseconds(duration));
  }
};

absl::Status Validate(const NodeOptions& options) {
  if (options.storage_actors < 1 || options.workers < 1) {
    return absl::InvalidArgumentError(
        "storage_actors and workers must be at least 1");
  }
  if (options.memory_bytes < (4u << 20)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "memory is ", options.memory_bytes, " bytes, expected at least 4 MiB"));
  }
  return placement::ValidateMembers(options.self, options.replicas,
                                    options.members);
}

// The part of the node's memory that is for objects that pass through. The
// storage actors share the rest.
uint64_t ScratchBytes(const NodeOptions& options) {
  constexpr uint64_t kScratchMin = 64u << 20;
  const uint64_t memory = options.memory_bytes;
  return std::max(memory / 4, std::min(memory / 2, kScratchMin));
}

// Shorter than the 10 s after which `kdn up` kills a node that stops.
constexpr absl::Duration kFlushTimeout = absl::Seconds(8);

// Tells the storage actors which objects the disk tier has dropped. The disk
// tier may drop objects as soon as it is open, before the storage actors exist:
// the relay keeps these notices until Begin. Thread-safe.
class EvictionRelay {
 public:
  void Tell(const storage::ObjectInfo& info) {
    absl::MutexLock lock(&mutex_);
    if (actors_.empty()) {
      early_.push_back(info);
    } else {
      Send(info);
    }
  }
  void Begin(std::vector<StorageActor> actors) {
    absl::MutexLock lock(&mutex_);
    actors_ = std::move(actors);
    for (const storage::ObjectInfo& info : early_) Send(info);
    early_.clear();
  }

 private:
  void Send(const storage::ObjectInfo& info)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    caf::anon_send(actors_[placement::PartitionOf(info.shard, actors_.size())],
                   DiskEviction{info.key, info.version});
  }

  absl::Mutex mutex_;
  std::vector<StorageActor> actors_ ABSL_GUARDED_BY(mutex_);
  std::vector<storage::ObjectInfo> early_ ABSL_GUARDED_BY(mutex_);
};

class NodeImpl final : public Node {
 public:
  NodeImpl(NodeOptions options, delivery::PeerTransport* transport,
           delivery::ControlNetwork* network, ViewHolder* view,
           const Clock* clock)
      : network_(*network),
        config_(options),
        system_(config_),
        peers_(system_, *network),
        context_(std::move(options), transport, view, clock),
        held_(static_cast<size_t>(context_.options.storage_actors)),
        services_(&system_, &context_) {}
  ~NodeImpl() override;

  absl::Status Start();

  delivery::NodeService& service() override { return services_; }
  delivery::PeerService& peer_service() override { return services_; }
  absl::Status SetMembers(std::vector<placement::MemberSpec> members) override;

 private:
  absl::Status OpenDisk();
  absl::Status SpawnStorage();
  absl::Status SpawnPlacement();
  absl::Status OpenCalibrations();
  absl::Status Publish(const NodeActor& node);
  void FlushPartitions();

  // Destroyed in reverse order: actors use the context, and tasks of its pool
  // and the disk tier's threads hold handles of actors.
  delivery::ControlNetwork& network_;
  SystemConfig config_;
  caf::actor_system system_;
  PeerNetwork peers_;
  NodeContext context_;
  // One for each storage actor. Two storage actors may hold the same key, under
  // different shards.
  std::vector<HeldKeys> held_;
  std::vector<StorageActor> storage_;
  EvictionRelay evictions_;
  absl::Time disk_opened_ = absl::InfinitePast();
  std::unique_ptr<storage::DiskTier> disk_;
  NodeServices services_;
  NodeActor node_actor_;
  PlacementActor placement_actor_;
};

absl::Status NodeImpl::Start() {
  absl::StatusOr<std::shared_ptr<storage::Arena>> scratch =
      storage::Arena::Create(ScratchBytes(context_.options));
  if (!scratch.ok()) return scratch.status();
  context_.passing = std::make_unique<PassingMemory>(*std::move(scratch));
  if (absl::Status status = OpenDisk(); !status.ok()) return status;
  if (absl::Status status = OpenCalibrations(); !status.ok()) return status;
  if (absl::Status status = SpawnStorage(); !status.ok()) return status;
  node_actor_ = system_.spawn(
      MakeNodeActor,
      NodeActorDeps{&context_, storage_, disk_.get(), context_.clock->Now()});
  if (absl::Status status = SpawnPlacement(); !status.ok()) return status;
  return Publish(node_actor_);
}

absl::Status NodeImpl::SpawnPlacement() {
  const NodeOptions& options = context_.options;
  absl::StatusOr<placement::Membership> membership =
      placement::Membership::Create({.self = options.self,
                                     .replicas = options.replicas,
                                     .dialling = {.retry = options.reconnect}},
                                    options.members, context_.clock->Now());
  if (!membership.ok()) return membership.status();
  const PeerHandles own{node_actor_, storage_, /*version=*/0};
  context_.view.Set(std::make_shared<const ClusterView>(
      membership->view(), LiveNodes{{options.self, own}}));
  context_.calibration_actor = system_.spawn(MakeCalibrationActor, &context_);
  placement_actor_ = system_.spawn(
      MakePlacementActor, PlacementActorDeps{&context_, *std::move(membership),
                                             own, peers_.connector()});
  return absl::OkStatus();
}

absl::Status NodeImpl::OpenCalibrations() {
  if (absl::Status status = context_.shelf.Open(); !status.ok()) return status;
  for (const std::vector<std::byte>& bytes : context_.options.calibrations) {
    const auto kept = context_.shelf.KeepConfigured(bytes);
    if (!kept.ok()) return kept.status();
  }
  return absl::OkStatus();
}

absl::Status NodeImpl::SetMembers(std::vector<placement::MemberSpec> members) {
  absl::Status status = placement::ValidateMembers(
      context_.self(), context_.options.replicas, members);
  if (status.ok()) {
    caf::anon_send(placement_actor_, MembersCall{std::move(members)});
  }
  return status;
}

absl::Status NodeImpl::OpenDisk() {
  const NodeOptions& options = context_.options;
  if (options.data_dir.empty()) return absl::OkStatus();
  storage::DiskTier::Options disk;
  disk_opened_ = context_.clock->Now();
  disk.directory = options.data_dir;
  disk.clock = context_.clock;
  // The partitions bound their requests, so that the tier refuses none of them
  // under a load that it can take.
  disk.requests_max = std::max(
      disk.requests_max, options.storage_actors *
                             storage::Partition::Options().disk_requests_max());
  disk.capacity_bytes = options.disk_bytes;
  disk.segment_bytes = std::min(disk.segment_bytes,
                                std::max<uint64_t>(options.disk_bytes / 8, 1));
  disk.holds = [this](ShardId shard, const ChunkKey& key) {
    return held_[placement::PartitionOf(shard, held_.size())].Has(key);
  };
  disk.on_evicted = [this](const storage::ObjectInfo& info) {
    evictions_.Tell(info);
  };
  absl::StatusOr<std::unique_ptr<storage::DiskTier>> opened =
      storage::DiskTier::Open(std::move(disk));
  if (!opened.ok()) return opened.status();
  disk_ = *std::move(opened);
  return absl::OkStatus();
}

absl::Status NodeImpl::SpawnStorage() {
  const NodeOptions& options = context_.options;
  const size_t actors = static_cast<size_t>(options.storage_actors);
  std::vector<std::vector<storage::ObjectInfo>> restored(actors);
  if (disk_ != nullptr) {
    absl::Status status = disk_->ForEach([&](const storage::ObjectInfo& info) {
      const size_t partition = placement::PartitionOf(info.shard, actors);
      // The disk tier may ask for holds before the storage actor exists.
      if (info.expires > disk_opened_) held_[partition].Set(info.key, true);
      restored[partition].push_back(info);
    });
    if (!status.ok()) return status;
  }
  const uint64_t bytes =
      (options.memory_bytes - ScratchBytes(options)) / actors;
  for (size_t i = 0; i < actors; ++i) {
    absl::StatusOr<std::shared_ptr<storage::Arena>> arena =
        storage::Arena::Create(bytes);
    if (!arena.ok()) return arena.status();
    storage_.push_back(system_.spawn(
        MakeStorageActor,
        StorageActorDeps{*std::move(arena), disk_.get(), &held_[i],
                         context_.clock, &context_.meters(), disk_opened_},
        std::move(restored[i])));
  }
  evictions_.Begin(storage_);
  return absl::OkStatus();
}

absl::Status NodeImpl::Publish(const NodeActor& node) {
  const NodeOptions& options = context_.options;
  const auto self = std::find_if(
      options.members.begin(), options.members.end(),
      [&](const placement::MemberSpec& m) { return m.id == options.self; });
  const std::string& address = options.listen_address.empty()
                                   ? self->addresses.host
                                   : options.listen_address;
  return peers_.Listen(address, self->addresses.control_port, node);
}

// DiskTier::Flush does not suffice: a partition hands the disk tier only a few
// objects at a time, and the others wait in the partition.
void NodeImpl::FlushPartitions() {
  const absl::Time deadline = context_.clock->Now() + kFlushTimeout;
  caf::scoped_actor asking(system_);
  for (const StorageActor& actor : storage_) {
    const absl::Duration left =
        std::max(deadline - context_.clock->Now(), absl::ZeroDuration());
    asking
        ->request(actor,
                  std::chrono::milliseconds(absl::ToInt64Milliseconds(left)),
                  FlushAtom::value)
        .receive([](bool) {},
                 [&](const caf::error& error) {
                   LogError("node.flush",
                            absl::StrCat("the node stops, and some objects "
                                         "were not written to disk: ",
                                         system_.render(error)));
                 });
  }
}

NodeImpl::~NodeImpl() {
  // The network's callbacks reach the actor system.
  network_.Close();
  // Transfers under way hold actor handles, so they end before the system does.
  // A node that failed to start has no view.
  if (const std::shared_ptr<const ClusterView> view = context_.view.Get()) {
    for (const placement::Member& member : view->members()) {
      context_.transport->FailPeer(member.spec.id);
    }
  }
  // Commits in the pool's queue spawn actors, which the wait below must cover.
  context_.pool.Drain();
  if (disk_ != nullptr) {
    FlushPartitions();
    if (absl::Status status = disk_->Flush(); !status.ok()) {
      LogError("node.flush",
               absl::StrCat("the node stops, and its disk tier was not "
                            "flushed: ",
                            status.message()));
    }
  }
  caf::anon_send_exit(placement_actor_, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(peers_.connector(), caf::exit_reason::user_shutdown);
  caf::anon_send_exit(node_actor_, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(context_.calibration_actor,
                      caf::exit_reason::user_shutdown);
  for (const StorageActor& actor : storage_) {
    caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
  }
  system_.await_all_actors_done();
  network_.Close();  // drops the dials of the last actors
  // The holder outlives the actor system, but the view holds handles of actors.
  context_.pool.Drain();
  context_.view.Set(nullptr);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Node>> Node::Start(
    NodeOptions options, delivery::PeerTransport* transport,
    delivery::ControlNetwork* network, ViewHolder* view, const Clock* clock) {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  auto node = std::make_unique<NodeImpl>(std::move(options), transport, network,
                                         view, clock);
  if (absl::Status status = node->Start(); !status.ok()) return status;
  return node;
}

}  // namespace kdn::actors
