#ifndef KDN_ACTORS_STORAGE_ACTOR_H_
#define KDN_ACTORS_STORAGE_ACTOR_H_

#include <functional>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "actors/held_keys.h"
#include "actors/messages.h"
#include "actors/returned_loans.h"
#include "kv/clock.h"
#include "kv/meters.h"
#include "storage/disk_tier.h"
#include "storage/partition.h"

namespace kdn::actors {

// What a storage actor gets from its node. The pointers outlive the actor.
struct StorageActorDeps {
  std::shared_ptr<storage::BlockSource> blocks;
  storage::DiskTier* disk = nullptr;  // null: memory only
  HeldKeys* held = nullptr;           // the actor keeps it up to date
  const Clock* clock = nullptr;
  Meters* meters = nullptr;
  // When the disk tier was opened. It holds the objects whose TTL ends later.
  absl::Time disk_opened = absl::InfinitePast();
};

// The answer to a lease call. It is sent when the last of its keys is done.
// That may take long: a removal waits for the disk, and so does a pin of an
// object that is only on disk.
class LeaseAnswer {
 public:
  using Promise = caf::typed_response_promise<std::vector<StatusItem>>;
  LeaseAnswer(Promise promise, size_t keys)
      : promise_(std::move(promise)), items_(keys), open_(keys) {
    if (open_ == 0) promise_.deliver(std::move(items_));
  }
  // Answers with an error when the actor stops before all keys are done, so
  // that the asking node need not wait for its deadline.
  ~LeaseAnswer();
  LeaseAnswer(const LeaseAnswer&) = delete;
  LeaseAnswer& operator=(const LeaseAnswer&) = delete;
  void Set(size_t key, const absl::Status& status);

 private:
  Promise promise_;
  std::vector<StatusItem> items_;
  size_t open_;
};

// The reply to one key of a lease call.
struct LeaseReply {
  std::shared_ptr<LeaseAnswer> answer;
  size_t key = 0;
  void operator()(const absl::Status& status) const {
    answer->Set(key, status);
  }
};

class DiskRequest;

// The shell around one storage::Partition. It turns messages into events, and
// the partition's actions into answers, disk requests and lines in the log.
struct StorageActorState {
  static inline const char* name = "storage";

  void Init(StorageActor::pointer self, const StorageActorDeps& deps);
  void Restore(const storage::ObjectInfo& info);
  void Perform(storage::Actions actions);
  storage::RequestId NextId() { return storage::RequestId(++last_id); }

  std::vector<LookupItem> Lookup(const LookupQuery& query);
  caf::result<std::vector<StatusItem>> Lease(const LeaseQuery& query);
  void LeaseOne(const LeaseQuery& query, const ChunkKey& key, LeaseReply reply);
  void Reserve(const ReserveCall& call);
  void Commit(const CommitCall& call);
  void Read(const ReadCall& call);
  void OnDisk(const DiskAnswer& answer);
  caf::result<bool> Flush();
  // Answers the flush calls when no object waits for the disk.
  void AnswerFlushes();
  // Tells the partition which loans readers have returned.
  void TakeReturned();
  void Tick();

  void Do(storage::action::Granted& action);
  void Do(storage::action::Committed& action);
  void Do(storage::action::Found& action);
  void Do(storage::action::Missed& action);
  void Do(storage::action::Refused& action);
  std::shared_ptr<DiskRequest> RequestOf(DiskAnswer::Kind kind,
                                         const ChunkKey& key) const;
  void Do(storage::action::WriteToDisk& action);
  void Do(storage::action::ReadFromDisk& action);
  void Do(storage::action::RemoveFromDisk& action);
  void Do(storage::action::Removed& action);
  void Do(storage::action::Pinned& action);
  void Do(storage::action::HoldChanged& action);
  void Do(storage::action::ConfirmHold& action);
  void Do(storage::action::AmendOnDisk& action);
  void Do(storage::action::WriteFailed& action);
  void Do(storage::action::HeldLost& action);

  StorageActor::pointer self = nullptr;
  StorageActorDeps deps;
  std::unique_ptr<storage::Partition> partition;
  uint64_t last_id = 0;
  using AnyReply = std::variant<Reply<std::shared_ptr<storage::ArenaBlock>>,
                                Reply<delivery::PushReceipt>,
                                Reply<delivery::PeerService::Held>, LeaseReply>;
  absl::flat_hash_map<storage::RequestId, AnyReply> replies;
  // Shared with the readers, because a reader may outlive the actor.
  std::shared_ptr<ReturnedLoans> returned = std::make_shared<ReturnedLoans>();
  std::vector<caf::typed_response_promise<bool>> flushes;
};

// `restored`: the objects of this partition that the disk tier has from an
// earlier run.
StorageActor::behavior_type MakeStorageActor(
    StorageActor::stateful_pointer<StorageActorState> self,
    StorageActorDeps deps, std::vector<storage::ObjectInfo> restored);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::StorageActorDeps)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::vector<kdn::storage::ObjectInfo>)

#endif  // KDN_ACTORS_STORAGE_ACTOR_H_
