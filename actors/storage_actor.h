#ifndef KDN_ACTORS_STORAGE_ACTOR_H_
#define KDN_ACTORS_STORAGE_ACTOR_H_

#include <functional>
#include <memory>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "actors/held_keys.h"
#include "actors/messages.h"
#include "kv/clock.h"
#include "storage/disk_tier.h"
#include "storage/partition.h"

namespace kdn::actors {

struct StorageActorDeps {
  std::shared_ptr<storage::Arena> arena;
  storage::DiskTier* disk = nullptr;  // null: memory only
  HeldKeys* held = nullptr;
  const Clock* clock = nullptr;
};

// The shell around one storage::Partition: turns messages into events and
// actions into answers and disk requests.
struct StorageActorState {
  static inline const char* name = "storage";

  void Init(StorageActor::pointer self, const StorageActorDeps& deps);
  void Perform(storage::Actions actions);
  storage::RequestId NextId() { return storage::RequestId(++last_id); }

  std::vector<LookupItem> Lookup(const LookupQuery& query);
  std::vector<StatusItem> Lease(const LeaseQuery& query);
  void Release(uint64_t session);
  void Reserve(const ReserveCall& call);
  void Commit(const CommitCall& call);
  void Read(const ReadCall& call);
  void OnDisk(const DiskAnswer& answer);
  void Tick();

  void Do(storage::action::Granted& action);
  void Do(storage::action::Committed& action);
  void Do(storage::action::Found& action);
  void Do(storage::action::Missed& action);
  void Do(storage::action::Refused& action);
  void Do(storage::action::WriteToDisk& action);
  void Do(storage::action::ReadFromDisk& action);
  void Do(storage::action::RemoveFromDisk& action);
  void RefreshHeld(const ChunkKey& key);

  StorageActor::pointer self = nullptr;
  StorageActorDeps deps;
  std::unique_ptr<storage::Partition> partition;
  uint64_t last_id = 0;
  using AnyReply = std::variant<Reply<std::shared_ptr<storage::ArenaBlock>>,
                                Reply<delivery::PushReceipt>,
                                Reply<delivery::PeerService::Held>>;
  absl::flat_hash_map<storage::RequestId, AnyReply> replies;
  // Keys reported as held; looked at again as leases expire.
  absl::flat_hash_set<ChunkKey> held;
  int ticks = 0;
};

// `restored`: what the disk tier holds of this partition's shards already.
StorageActor::behavior_type MakeStorageActor(
    StorageActor::stateful_pointer<StorageActorState> self,
    StorageActorDeps deps, std::vector<storage::ObjectInfo> restored);

}  // namespace kdn::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(kdn::actors::StorageActorDeps)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(std::vector<kdn::storage::ObjectInfo>)

#endif  // KDN_ACTORS_STORAGE_ACTOR_H_
