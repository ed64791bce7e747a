#include "actors/storage_actor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/wire.h"
#include "kv/check.h"
#include "kv/log.h"

namespace kdn::actors {
namespace {

constexpr auto kTick = std::chrono::milliseconds(20);

}  // namespace

// One request to the disk tier. The callback and the memory of the request
// share this object. Its destructor sends the answer, so the disk tier holds
// neither of them any more when the answer comes.
class DiskRequest {
 public:
  DiskRequest(StorageActor to, DiskAnswer::Kind kind, const ChunkKey& key,
              const StorageActorDeps& deps)
      : to_(std::move(to)),
        kind_(kind),
        key_(key),
        clock_(deps.clock),
        meters_(deps.meters),
        asked_(clock_->Now()) {}
  ~DiskRequest() { caf::anon_send(to_, DiskAnswer{kind_, key_, status_}); }
  DiskRequest(const DiskRequest&) = delete;
  DiskRequest& operator=(const DiskRequest&) = delete;

  static storage::DiskTier::Done DoneOf(std::shared_ptr<DiskRequest> request) {
    return [request = std::move(request)](absl::Status status) mutable {
      request->status_ = std::move(status);
      request->CountLatency();
      request.reset();
    };
  }

 private:
  void CountLatency() {
    const absl::Duration took = clock_->Now() - asked_;
    if (kind_ == DiskAnswer::Kind::kWritten) {
      meters_->Record("disk_write_us", took);
    } else if (kind_ == DiskAnswer::Kind::kRead) {
      meters_->Record("disk_read_us", took);
    }
  }

  const StorageActor to_;
  const DiskAnswer::Kind kind_;
  const ChunkKey key_;
  const Clock* const clock_;
  Meters* const meters_;
  const absl::Time asked_;
  absl::Status status_ =
      absl::UnavailableError("the disk tier dropped the request unanswered");
};

void StorageActorState::Init(StorageActor::pointer self_in,
                             const StorageActorDeps& deps_in) {
  self = self_in;
  deps = deps_in;
  storage::Partition::Options options;
  options.has_disk = deps.disk != nullptr;
  partition = std::make_unique<storage::Partition>(options, deps.blocks);
}

void StorageActorState::Restore(const storage::ObjectInfo& info) {
  // The disk tier knows the TTL from its record: it need not hear of each hold.
  for (const storage::Action& action :
       partition->Restore(info, deps.disk_opened)) {
    const auto& hold = std::get<storage::action::HoldChanged>(action);
    deps.held->Set(hold.key, hold.held);
  }
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
  }
  return promise;
}

void StorageActorState::LeaseOne(const LeaseQuery& query, const ChunkKey& key,
                                 LeaseReply reply) {
  const SessionId session(query.session);
  const storage::RequestId id = NextId();
  replies.emplace(id, std::move(reply));
  switch (static_cast<LeaseOp>(query.op)) {
    case LeaseOp::kPin:
      return Perform(
          partition->Pin(id, key, query.ns, session,
                         deps.clock->Now() + absl::Microseconds(query.ttl_us)));
    case LeaseOp::kUnpin:
      return Perform(partition->Unpin(id, key, query.ns, session));
    case LeaseOp::kRemove:
      return Perform(partition->Remove(id, key, query.ns, session));
  }
  storage::action::Refused refused{
      id, absl::InvalidArgumentError(
              absl::StrCat("this node does not know the lease operation ",
                           static_cast<int>(query.op)))};
  Do(refused);
}

void StorageActorState::Reserve(const ReserveCall& call) {
  TakeReturned();
  const storage::RequestId id = NextId();
  replies.emplace(id, call.reply);
  Perform(partition->Reserve(id, call.bytes, call.deadline, deps.clock->Now()));
  if (call.cancellation == nullptr || !replies.contains(id)) return;
  call.cancellation->OnCancel([weak = self->address(), id] {
    if (const auto to = caf::actor_cast<StorageActor>(weak)) {
      caf::anon_send(to, WithdrawCall{id});
    }
  });
}

void StorageActorState::Commit(const CommitCall& call) {
  const storage::RequestId id = NextId();
  replies.emplace(id, call.reply);
  Perform(partition->Commit(id, call.info, call.block, call.durability,
                            call.expires, call.deadline, deps.clock->Now()));
}

void StorageActorState::Read(const ReadCall& call) {
  TakeReturned();
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
    case DiskAnswer::Kind::kHeld:
      return Perform(partition->OnDiskHeld(answer.key, answer.status, now));
    case DiskAnswer::Kind::kAmended:
      Perform(partition->OnDiskAmended(answer.key, answer.status, now));
      return AnswerFlushes();
  }
}

caf::result<bool> StorageActorState::Flush() {
  flushes.push_back(self->make_response_promise<bool>());
  const auto promise = flushes.back();
  Perform(partition->Flush(deps.clock->Now()));
  AnswerFlushes();
  return promise;
}

void StorageActorState::AnswerFlushes() {
  if (partition->HasUnwritten()) return;
  for (auto& promise : std::exchange(flushes, {})) promise.deliver(true);
}

void StorageActorState::TakeReturned() {
  for (const storage::Loan& loan : returned->Take()) {
    Perform(partition->OnReturned(loan, deps.clock->Now()));
  }
}

void StorageActorState::Tick() {
  TakeReturned();
  Perform(partition->OnTick(deps.clock->Now()));
  AnswerFlushes();  // the last object that waited may have been removed
  self->delayed_send(self, kTick, TickAtom::value);
}

void StorageActorState::Perform(storage::Actions actions) {
  for (storage::Action& action : actions) {
    std::visit([this](auto& a) { Do(a); }, action);
  }
}

namespace {

// Takes the reply of a request that ends. Each request has exactly one reply.
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
  if (deps.disk != nullptr && action.info.tier == Tier::kMemory) {
    deps.disk->Touch(action.info.shard, action.info.key);
  }
  storage::ObjectRef object = WhenGone(
      std::move(action.object),
      [returned = returned, loan = action.loan] { returned->Add(loan); });
  TakeReply<Reply<delivery::PeerService::Held>>(replies, action.id)(
      delivery::PeerService::Held{action.info, std::move(object)});
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

std::shared_ptr<DiskRequest> StorageActorState::RequestOf(
    DiskAnswer::Kind kind, const ChunkKey& key) const {
  return std::make_shared<DiskRequest>(caf::actor_cast<StorageActor>(self),
                                       kind, key, deps);
}

void StorageActorState::Do(storage::action::WriteToDisk& action) {
  auto request = RequestOf(DiskAnswer::Kind::kWritten, action.info.key);
  storage::ObjectRef object = WhenGone(
      std::move(action.object), [request]() mutable { request.reset(); });
  deps.disk->Write(action.info, std::move(object), action.sync,
                   DiskRequest::DoneOf(std::move(request)));
}

void StorageActorState::Do(storage::action::ReadFromDisk& action) {
  auto request = RequestOf(DiskAnswer::Kind::kRead, action.info.key);
  std::shared_ptr<storage::ArenaBlock> block = WhenGone(
      std::move(action.block), [request]() mutable { request.reset(); });
  deps.disk->Read(action.info, std::move(block),
                  DiskRequest::DoneOf(std::move(request)));
}

void StorageActorState::Do(storage::action::RemoveFromDisk& action) {
  deps.disk->Remove(
      action.shard, action.key,
      DiskRequest::DoneOf(RequestOf(DiskAnswer::Kind::kRemoved, action.key)));
}

void StorageActorState::Do(storage::action::Removed& action) {
  TakeReply<LeaseReply>(replies, action.id)(absl::OkStatus());
}

void StorageActorState::Do(storage::action::Pinned& action) {
  TakeReply<LeaseReply>(replies, action.id)(absl::OkStatus());
}

void StorageActorState::Do(storage::action::HoldChanged& action) {
  deps.held->Set(action.key, action.held);
  const storage::ObjectInfo* info = partition->Find(action.key);
  if (deps.disk != nullptr && info != nullptr) {
    deps.disk->HeldChanged(info->shard, action.key);
  }
}

void StorageActorState::Do(storage::action::ConfirmHold& action) {
  deps.disk->ConfirmHeld(
      action.shard, action.key,
      DiskRequest::DoneOf(RequestOf(DiskAnswer::Kind::kHeld, action.key)));
}

void StorageActorState::Do(storage::action::AmendOnDisk& action) {
  deps.disk->Amend(action.info, action.sync,
                   DiskRequest::DoneOf(
                       RequestOf(DiskAnswer::Kind::kAmended, action.info.key)));
}

void StorageActorState::Do(storage::action::WriteFailed& action) {
  const bool again = action.again_in > absl::ZeroDuration();
  LogWarning("storage.write",
             absl::StrCat("chunk ", ShortHex(action.key),
                          " was not written to disk: ", action.why.message(),
                          again ? "; tried again in " : "",
                          again ? absl::FormatDuration(action.again_in) : ""));
}

void StorageActorState::Do(storage::action::HeldLost& action) {
  LogError("storage.held",
           absl::StrCat("chunk ", ShortHex(action.key),
                        " was pinned or had time to live left, and the disk "
                        "lost this node's only copy"));
}

StorageActor::behavior_type MakeStorageActor(
    StorageActor::stateful_pointer<StorageActorState> self,
    StorageActorDeps deps, std::vector<storage::ObjectInfo> restored) {
  StorageActorState* state = &self->state;
  state->Init(self, deps);
  for (const storage::ObjectInfo& info : restored) {
    state->Restore(info);
  }
  self->delayed_send(self, kTick, TickAtom::value);
  return {
      [state](LookupAtom, const LookupQuery& q) { return state->Lookup(q); },
      [state](LeaseAtom, const LeaseQuery& q) { return state->Lease(q); },
      [state](ReleaseAtom, uint64_t session) {
        state->Perform(state->partition->ReleaseSession(SessionId(session)));
      },
      [state](CountAtom) { return ToWire(state->partition->counters()); },
      [state](FlushAtom) { return state->Flush(); },
      [state](const ReserveCall& call) { state->Reserve(call); },
      [state](const WithdrawCall& call) {
        state->Perform(state->partition->Withdraw(call.reservation,
                                                  state->deps.clock->Now()));
      },
      [state](const CommitCall& call) { state->Commit(call); },
      [state](const ReadCall& call) { state->Read(call); },
      [state](const DiscardCall& call) {
        state->Perform(state->partition->Discard(call.key, call.version));
      },
      [state](const DiskAnswer& answer) { state->OnDisk(answer); },
      [state](const DiskEviction& eviction) {
        state->Perform(state->partition->OnEvictedFromDisk(
            eviction.key, eviction.version, state->deps.clock->Now()));
      },
      [state](TickAtom) { state->Tick(); },
  };
}

}  // namespace kdn::actors
