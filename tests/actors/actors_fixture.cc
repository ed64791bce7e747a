#include "tests/actors/actors_fixture.h"

#include <algorithm>
#include <limits>

#include "absl/synchronization/notification.h"
#include "actors/node_actor.h"

namespace kdn::actors {
namespace {

constexpr auto kTick = std::chrono::milliseconds(20);

StorageActor::behavior_type MakeSilent(StorageActor::pointer self) {
  return {
      [self](LookupAtom,
             const LookupQuery&) -> caf::result<std::vector<LookupItem>> {
        return self->make_response_promise<std::vector<LookupItem>>();
      },
      [self](LeaseAtom,
             const LeaseQuery&) -> caf::result<std::vector<StatusItem>> {
        return self->make_response_promise<std::vector<StatusItem>>();
      },
      [](ReleaseAtom, uint64_t) {},
      [self](CountAtom) -> caf::result<std::vector<MetricItem>> {
        return self->make_response_promise<std::vector<MetricItem>>();
      },
      [self](FlushAtom) -> caf::result<bool> {
        return self->make_response_promise<bool>();
      },
      [](const ReserveCall&) {},
      [](const WithdrawCall&) {},
      [](const CommitCall&) {},
      [](const ReadCall&) {},
      [](const DiscardCall&) {},
      [](const DiskAnswer&) {},
      [](const DiskEviction&) {},
      [](TickAtom) {},
  };
}

std::shared_ptr<const placement::ShardMap> MapOf(
    const placement::MapMembers& members) {
  absl::StatusOr<placement::ShardMap> map =
      placement::ShardMap::Build(members, {});
  EXPECT_TRUE(map.ok()) << map.status();
  return std::make_shared<const placement::ShardMap>(*std::move(map));
}

}  // namespace

ActorsTest::ActorsTest() {
  NodeOptions options;
  options.self = a_;
  for (const NodeId& id : {a_, b_, c_}) {
    options.members.emplace_back();
    options.members.back().id = id;
  }
  options.workers = 1;
  node_ = std::make_unique<NodeContext>(std::move(options), &transport_,
                                        &views_.emplace_back(), &clock_);
  node_->passing =
      std::make_unique<PassingMemory>(*storage::Arena::Create(1u << 20));
  for (const NodeId& id : {a_, b_, c_}) {
    live_[id].storage = {SpawnStorage()};
  }
  Publish();
}

ActorsTest::~ActorsTest() {
  live_.clear();
  for (const NodeActor& actor : peer_actors_) {
    caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
  }
  for (const StorageActor& actor : spawned_) {
    caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
  }
  Run();
}

void ActorsTest::Advance(absl::Duration time) {
  for (; time > absl::ZeroDuration(); time -= absl::FromChrono(kTick)) {
    clock_.Advance(absl::FromChrono(kTick));
    scheduler_.advance_time(kTick);
    Run();
  }
}

void ActorsTest::RunWithPool() {
  // Actors post tasks, and tasks send messages to actors: three rounds are
  // enough for every call that the tests make.
  for (int round = 0; round < 3; ++round) {
    Run();
    node_->pool.Drain();
  }
  Run();
}

std::shared_ptr<const ClusterView> ActorsTest::ViewOf(
    const NodeId& self) const {
  placement::MapMembers all;
  placement::MapMembers live;
  placement::View::Parts parts;
  for (const NodeId& id : {a_, b_, c_}) {
    const bool up = live_.contains(id);
    all.push_back({id, 1.0});
    if (up) live.push_back({id, 1.0});
    placement::Member member;
    member.spec.id = id;
    member.state =
        up ? placement::MemberState::kServing : placement::MemberState::kAway;
    member.incarnation = placement::Incarnation(1);
    parts.members.push_back(std::move(member));
  }
  parts.self = self;
  parts.replicas = node_->options.replicas;
  parts.map = MapOf(live);
  parts.map_of_all = MapOf(all);
  return std::make_shared<const ClusterView>(placement::View(std::move(parts)),
                                             live_);
}

void ActorsTest::Publish() { node_->view.Set(ViewOf(a_)); }

StorageActor ActorsTest::SpawnStorage(size_t arena_bytes,
                                      storage::DiskTier* disk) {
  spawned_.push_back(
      system_.spawn(MakeStorageActor,
                    StorageActorDeps{*storage::Arena::Create(arena_bytes), disk,
                                     &held_, &clock_, &meters_},
                    std::vector<storage::ObjectInfo>()));
  return spawned_.back();
}

NodeContext& ActorsTest::SpawnNode(const NodeId& id) {
  NodeOptions options = node_->options;
  options.self = id;
  peers_.push_back(std::make_unique<NodeContext>(
      std::move(options), &transport_, &views_.emplace_back(), &clock_));
  NodeContext& peer = *peers_.back();
  peer.passing =
      std::make_unique<PassingMemory>(*storage::Arena::Create(1u << 20));
  peer_actors_.push_back(system_.spawn(
      MakeNodeActor,
      NodeActorDeps{&peer, live_[id].storage, nullptr, clock_.Now()}));
  live_[id].node = peer_actors_.back();
  Publish();
  peer.view.Set(ViewOf(id));
  return peer;
}

StorageActor ActorsTest::SpawnSilent() {
  spawned_.push_back(system_.spawn(MakeSilent));
  return spawned_.back();
}

ChunkRef ActorsTest::RefOf(int i) {
  DigestBuilder name("actors test");
  const ChunkKey key(name.Add(static_cast<uint64_t>(i)).Finish());
  return ChunkRef{key};
}

int ActorsTest::NumberOwnedBy(const std::vector<NodeId>& owners,
                              int from) const {
  const int count = static_cast<int>(owners.size());
  for (int i = from;; ++i) {
    if (node_->view.Get()->OwnersOf(RefOf(i), count) == owners) return i;
  }
}

ChunkIdentity ActorsTest::IdentityOwnedBy(
    const ModelSpec& model, int tokens,
    const std::vector<NodeId>& owners) const {
  ChunkIdentity identity{FingerprintOf(model), *Namespace::Parse("t"),
                         ChunkKey(), std::string(kRawVariant),
                         std::vector<int32_t>(tokens, 5)};
  const int count = static_cast<int>(owners.size());
  while (node_->view.Get()->OwnersOf(ChunkRef{KeyOf(identity, 0)}, count) !=
         owners) {
    ++identity.tokens[0];
  }
  return identity;
}

storage::ObjectInfo ActorsTest::InfoOf(int i, size_t bytes) const {
  storage::ObjectInfo info;
  info.key = RefOf(i).key;
  info.shard = node_->view.Get()->ShardOf(RefOf(i));
  info.ns = "t";
  info.version = ObjectVersion(7);
  info.bytes = bytes;
  return info;
}

void ActorsTest::Put(const StorageActor& storage, int i, size_t bytes,
                     absl::Time expires) {
  Answer<std::shared_ptr<storage::ArenaBlock>> granted;
  caf::anon_send(storage,
                 ReserveCall{bytes, In(absl::Seconds(1)), granted.AsReply()});
  Run();
  ASSERT_TRUE(granted.value.ok()) << granted.value.status();
  std::fill((*granted.value)->bytes().begin(), (*granted.value)->bytes().end(),
            static_cast<std::byte>(i));
  Answer<delivery::PushReceipt> committed;
  caf::anon_send(
      storage,
      CommitCall{InfoOf(i, bytes), *granted.value, Durability::kReplicated,
                 expires, In(absl::Seconds(1)), committed.AsReply()});
  granted.value = absl::UnknownError("given away");
  Run();
  ASSERT_EQ(committed.times, 1);
  ASSERT_TRUE(committed.value.ok()) << committed.value.status();
}

}  // namespace kdn::actors
