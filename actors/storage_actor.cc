#include "actors/storage_actor.h"

#include <utility>

#include "actors/wire.h"
#include "kv/check.h"

namespace kdn::actors {
namespace {

constexpr auto kTick = std::chrono::milliseconds(20);
// Leases expire by the second, so held keys are looked at that often.
constexpr int kTicksPerHeldSweep = 50;

}  // namespace

void StorageActorState::Init(StorageActor::pointer self_in,
                             const StorageActorDeps& deps_in) {
  self = self_in;
  deps = deps_in;
  storage::Partition::Options options;
  options.has_disk = deps.disk != nullptr;
  partition = std::make_unique<storage::Partition>(options, deps.arena);
}

std::vector<LookupItem> StorageActorState::Lookup(const LookupQuery& query) {
  std::vector<LookupItem> items;
  for (const ChunkKey& key : UnpackKeys(query.keys)) {
    items.push_back(ToWire(partition->Lookup(key, query.ns)));
  }
  return items;
}

LeaseAnswer::~LeaseAnswer() {
  if (open_ == 0) return;
  promise_.deliver(caf::make_error(caf::sec::request_receiver_down));
}

void LeaseAnswer::Set(size_t key, const absl::Status& status) {
  items_[key] = ToWire(status);
  if (--open_ == 0) promise_.deliver(std::move(items_));
}

caf::result<std::vector<StatusItem>> StorageActorState::Lease(
    const LeaseQuery& query) {
  const auto promise = self->make_response_promise<std::vector<StatusItem>>();
  const std::vector<ChunkKey> keys = UnpackKeys(query.keys);
  const auto answer = std::make_shared<LeaseAnswer>(promise, keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    LeaseOne(query, keys[i], LeaseReply{answer, i});
    RefreshHeld(keys[i]);
  }
  return promise;
}

void StorageActorState::LeaseOne(const LeaseQuery& query, const ChunkKey& key,
                                 LeaseReply reply) {
  const SessionId session(query.session);
  switch (static_cast<LeaseOp>(query.op)) {
    case LeaseOp::kPin:
      return reply(
          partition->Pin(key, query.ns, session,
                         deps.clock->Now() + absl::Microseconds(query.ttl_us)));
    case LeaseOp::kUnpin:
      return reply(partition->Unpin(key, query.ns, session));
    case LeaseOp::kRemove: {
      const storage::RequestId id = NextId();
      replies.emplace(id, std::move(reply));
      return Perform(partition->Remove(id, key, query.ns, session));
    }
  }
  reply(absl::InvalidArgumentError("unknown lease operation"));
}

void StorageActorState::Release(uint64_t session) {
  partition->ReleaseSession(SessionId(session));
  const absl::flat_hash_set<ChunkKey> keys = held;
  for (const ChunkKey& key : keys) RefreshHeld(key);
}

void StorageActorState::Reserve(const ReserveCall& call) {
  const storage::RequestId id = NextId();
  replies.emplace(id, call.reply);
  Perform(partition->Reserve(id, call.bytes, call.deadline, deps.clock->Now()));
}

void StorageActorState::Commit(const CommitCall& call) {
  const storage::RequestId id = NextId();
  replies.emplace(id, call.reply);
  Perform(partition->Commit(id, call.info, call.block, call.durability,
                            call.expires, call.deadline, deps.clock->Now()));
  RefreshHeld(call.info.key);
}

void StorageActorState::Read(const ReadCall& call) {
  const storage::RequestId id = NextId();
  replies.emplace(id, call.reply);
  Perform(
      partition->Read(id, call.key, call.ns, call.deadline, deps.clock->Now()));
}

void StorageActorState::OnDisk(const DiskAnswer& answer) {
  const absl::Time now = deps.clock->Now();
  switch (answer.kind) {
    case DiskAnswer::Kind::kWritten:
      Perform(partition->OnDiskWritten(answer.key, answer.status, now));
      return AnswerFlushes();
    case DiskAnswer::Kind::kRead:
      return Perform(partition->OnDiskRead(answer.key, answer.status, now));
    case DiskAnswer::Kind::kRemoved:
      return Perform(partition->OnDiskRemoved(answer.key, answer.status));
  }
}

caf::result<bool> StorageActorState::Flush() {
  flushes.push_back(self->make_response_promise<bool>());
  const auto promise = flushes.back();
  AnswerFlushes();
  return promise;
}

void StorageActorState::AnswerFlushes() {
  if (partition->HasUnwritten()) return;
  for (auto& promise : std::exchange(flushes, {})) promise.deliver(true);
}

void StorageActorState::Tick() {
  Perform(partition->OnTick(deps.clock->Now()));
  AnswerFlushes();  // what waits for the disk may have been removed
  if (++ticks % kTicksPerHeldSweep == 0) {
    const absl::flat_hash_set<ChunkKey> keys = held;
    for (const ChunkKey& key : keys) RefreshHeld(key);
  }
  self->delayed_send(self, kTick, TickAtom::value);
}

void StorageActorState::RefreshHeld(const ChunkKey& key) {
  const bool now_held = partition->Held(key, deps.clock->Now());
  if (now_held == held.contains(key)) return;
  if (now_held) {
    held.insert(key);
  } else {
    held.erase(key);
  }
  deps.held->Set(key, now_held);
}

void StorageActorState::Perform(storage::Actions actions) {
  for (storage::Action& action : actions) {
    std::visit([this](auto& a) { Do(a); }, action);
  }
}

namespace {

// Takes the reply of a request that has come to its end. Each has exactly one.
template <typename R, typename Map>
R TakeReply(Map& replies, storage::RequestId id) {
  auto node = replies.extract(id);
  KDN_CHECK(!node.empty(), "a request ends once");
  R* reply = std::get_if<R>(&node.mapped());
  KDN_CHECK(reply != nullptr, "a request ends in an answer of its own kind");
  return *reply;
}

}  // namespace

void StorageActorState::Do(storage::action::Granted& action) {
  TakeReply<Reply<std::shared_ptr<storage::ArenaBlock>>>(
      replies, action.id)(std::move(action.block));
}

void StorageActorState::Do(storage::action::Committed& action) {
  TakeReply<Reply<delivery::PushReceipt>>(replies, action.id)(
      delivery::PushReceipt{action.info.version, action.existed});
}

void StorageActorState::Do(storage::action::Found& action) {
  TakeReply<Reply<delivery::PeerService::Held>>(replies, action.id)(
      delivery::PeerService::Held{action.info, std::move(action.object)});
}

void StorageActorState::Do(storage::action::Missed& action) {
  TakeReply<Reply<delivery::PeerService::Held>>(replies, action.id)(
      absl::NotFoundError("this node does not hold the chunk"));
}

void StorageActorState::Do(storage::action::Refused& action) {
  auto node = replies.extract(action.id);
  KDN_CHECK(!node.empty(), "a request ends once");
  std::visit([&](auto& reply) { reply(action.why); }, node.mapped());
}

void StorageActorState::Do(storage::action::WriteToDisk& action) {
  deps.disk->Write(
      action.info, std::move(action.object), action.sync,
      [to = caf::actor_cast<StorageActor>(self),
       key = action.info.key](absl::Status status) {
        caf::anon_send(to, DiskAnswer{DiskAnswer::Kind::kWritten, key, status});
      });
}

void StorageActorState::Do(storage::action::ReadFromDisk& action) {
  deps.disk->Read(
      action.info, std::move(action.block),
      [to = caf::actor_cast<StorageActor>(self),
       key = action.info.key](absl::Status status) {
        caf::anon_send(to, DiskAnswer{DiskAnswer::Kind::kRead, key, status});
      });
}

void StorageActorState::Do(storage::action::RemoveFromDisk& action) {
  deps.disk->Remove(
      action.shard, action.key,
      [to = caf::actor_cast<StorageActor>(self),
       key = action.key](absl::Status status) {
        caf::anon_send(to, DiskAnswer{DiskAnswer::Kind::kRemoved, key, status});
      });
}

void StorageActorState::Do(storage::action::Removed& action) {
  TakeReply<LeaseReply>(replies, action.id)(absl::OkStatus());
}

StorageActor::behavior_type MakeStorageActor(
    StorageActor::stateful_pointer<StorageActorState> self,
    StorageActorDeps deps, std::vector<storage::ObjectInfo> restored) {
  StorageActorState* state = &self->state;
  state->Init(self, deps);
  for (const storage::ObjectInfo& info : restored) {
    state->partition->Restore(info);
    state->RefreshHeld(info.key);
  }
  self->delayed_send(self, kTick, TickAtom::value);
  return {
      [state](LookupAtom, const LookupQuery& q) { return state->Lookup(q); },
      [state](LeaseAtom, const LeaseQuery& q) { return state->Lease(q); },
      [state](ReleaseAtom, uint64_t session) { state->Release(session); },
      [state](CountAtom) { return state->partition->counters(); },
      [state](FlushAtom) { return state->Flush(); },
      [state](const ReserveCall& call) { state->Reserve(call); },
      [state](const CommitCall& call) { state->Commit(call); },
      [state](const ReadCall& call) { state->Read(call); },
      [state](const DiscardCall& call) {
        state->Perform(state->partition->Discard(call.key, call.version));
      },
      [state](const DiskAnswer& answer) { state->OnDisk(answer); },
      [state](const DiskEviction& eviction) {
        state->partition->OnEvictedFromDisk(eviction.key, eviction.version);
      },
      [state](TickAtom) { state->Tick(); },
  };
}

}  // namespace kdn::actors
