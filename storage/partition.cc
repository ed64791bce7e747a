#include "storage/partition.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

Partition::Partition(Options options, std::shared_ptr<Arena> arena)
    : impl_(std::make_unique<Impl>(options, std::move(arena))) {}
Partition::~Partition() = default;

void Partition::Restore(const ObjectInfo& info) {
  KDN_CHECK(impl_->options.has_disk, "what is restored rests on a disk");
  Entry entry;
  entry.info = info;
  entry.expires = info.expires;
  entry.on_disk = true;
  entry.synced = true;
  impl_->entries.emplace(info.key, std::move(entry));
}

Entry* Partition::Impl::FindVisible(const ChunkKey& key,
                                    const std::string& ns) {
  const auto found = entries.find(key);
  if (found == entries.end() || !found->second.visible ||
      found->second.info.ns != ns) {
    return nullptr;
  }
  return &found->second;
}

bool Partition::Impl::MayEvict(const Entry& entry, absl::Time now) const {
  if (entry.write != Entry::Write::kNone) return false;  // on its way to disk
  // A lease keeps it on the node, not in memory.
  if (entry.on_disk) return true;
  return !leases.Held(entry.info.key, now) && entry.expires <= now;
}

std::shared_ptr<ArenaBlock> Partition::Impl::MakeRoom(size_t bytes,
                                                      absl::Time now) {
  for (;;) {
    absl::StatusOr<std::shared_ptr<ArenaBlock>> block = arena->Allocate(bytes);
    if (block.ok()) return *std::move(block);
    // The only copy of an object goes last: the disk refused it.
    Entry* victim = nullptr;
    if (options.has_disk) victim = FindVictim(/*on_disk=*/true, now);
    if (victim == nullptr) victim = FindVictim(/*on_disk=*/false, now);
    if (victim == nullptr) return nullptr;
    DropFromMemory(*victim);
  }
}

Entry* Partition::Impl::FindVictim(bool on_disk, absl::Time now) {
  const Slot slot = policy.Victim([&](Slot candidate) {
    const Entry& entry = *by_slot[candidate.value()];
    // Held by a reader: letting go would not give the memory back.
    return entry.on_disk == on_disk && entry.object.use_count() == 1 &&
           MayEvict(entry, now);
  });
  return slot == kNoSlot ? nullptr : by_slot[slot.value()];
}

void Partition::Impl::PutInMemory(Entry& entry, ObjectRef object) {
  KDN_CHECK(entry.object == nullptr, "one memory copy an object");
  entry.slot = policy.Insert(
      {EvictionHashOf(entry.info.key),
       static_cast<uint32_t>(object->capacity() / Arena::kPageBytes)});
  entry.object = std::move(object);
  if (entry.slot.value() >= by_slot.size()) {
    by_slot.resize(entry.slot.value() + 1);
  }
  by_slot[entry.slot.value()] = &entry;
}

void Partition::Impl::DropFromMemory(Entry& entry) {
  KDN_CHECK(entry.object != nullptr, "only a memory copy can be dropped");
  by_slot[entry.slot.value()] = nullptr;
  policy.Evict(std::exchange(entry.slot, kNoSlot));
  entry.object.reset();
  if (entry.on_disk) {
    ++counters.evictions;
  } else {
    ++counters.evictions_lost;
    const ChunkKey key = entry.info.key;
    leases.Forget(key);
    entries.erase(key);
  }
}

void Partition::Impl::ForgetMemory(Entry& entry) {
  if (entry.object == nullptr) return;
  by_slot[entry.slot.value()] = nullptr;
  policy.Erase(std::exchange(entry.slot, kNoSlot));
  entry.object.reset();
}

void Partition::Impl::EraseEntry(const ChunkKey& key,
                                 const absl::Status& to_readers,
                                 Actions& actions) {
  const auto found = entries.find(key);
  KDN_CHECK(found != entries.end(), "only what is there can be erased");
  Entry& entry = found->second;
  if (entry.write == Entry::Write::kInFlight) ++stale_writes[key];
  for (const Committer& waiter : entry.committers) {
    actions.push_back(action::Refused{
        waiter.id, absl::AbortedError("the object was removed meanwhile")});
  }
  committing.erase(key);
  ForgetMemory(entry);
  const auto read = reads.find(key);
  if (read != reads.end()) {
    const bool missing = absl::IsNotFound(to_readers);
    CountTerminal(
        missing ? &PartitionCounters::misses : &PartitionCounters::failures,
        read->second.readers.size());
    waiting -= static_cast<int>(read->second.readers.size());
    for (const Waiter& reader : read->second.readers) {
      if (missing) {
        actions.push_back(action::Missed{reader.id});
      } else {
        actions.push_back(action::Refused{reader.id, to_readers});
      }
    }
    read->second.readers.clear();
    read->second.stale = true;
    if (read->second.block == nullptr) reads.erase(read);
  }
  leases.Forget(key);
  entries.erase(found);
}

Actions Partition::Reserve(RequestId id, size_t bytes, absl::Time deadline,
                           absl::Time now) {
  Actions actions;
  if (bytes == 0 || bytes > impl_->arena->budget_bytes()) {
    actions.push_back(action::Refused{
        id, absl::InvalidArgumentError(absl::StrCat(
                "an object of ", bytes, " bytes never fits a partition of ",
                impl_->arena->budget_bytes()))});
    return actions;
  }
  if (impl_->waiting >= impl_->options.waiting_max) {
    actions.push_back(action::Refused{
        id, absl::ResourceExhaustedError(absl::StrCat(
                impl_->waiting, " requests wait for room already"))});
    return actions;
  }
  ++impl_->waiting;
  impl_->reservations.push_back({id, bytes, deadline});
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::ServeReservations(absl::Time now, Actions& actions) {
  // In order: a large one is not starved by small ones behind it.
  while (!reservations.empty()) {
    std::shared_ptr<ArenaBlock> block =
        MakeRoom(reservations.front().bytes, now);
    if (block == nullptr) return;
    actions.push_back(
        action::Granted{reservations.front().id, std::move(block)});
    reservations.pop_front();
    --waiting;
  }
}

Actions Partition::Commit(RequestId id, const ObjectInfo& info,
                          std::shared_ptr<ArenaBlock> block,
                          Durability durability, absl::Time expires,
                          absl::Time deadline, absl::Time now) {
  KDN_CHECK(block != nullptr && block->size() == info.bytes,
            "a commit brings the whole object");
  Actions actions;
  if (durability == Durability::kDurable && !impl_->options.has_disk) {
    actions.push_back(action::Refused{
        id, absl::FailedPreconditionError(
                "durable needs a disk tier, and this node has none")});
    return actions;
  }
  const auto found = impl_->entries.find(info.key);
  const bool known = found != impl_->entries.end();
  if (known && found->second.info.ns != info.ns) {
    actions.push_back(action::Refused{
        id, absl::InvalidArgumentError("a key belongs to one namespace")});
  } else if (!known || found->second.nowhere()) {
    impl_->CommitNew(id, info, std::move(block), durability, expires, deadline,
                     actions);
  } else {
    impl_->CommitExisting(found->second, id, info, std::move(block), durability,
                          expires, deadline, actions);
  }
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::CommitNew(RequestId id, const ObjectInfo& info,
                                ObjectRef object, Durability durability,
                                absl::Time expires, absl::Time deadline,
                                Actions& actions) {
  const auto [at, unknown] = entries.try_emplace(info.key);
  Entry& entry = at->second;
  entry.info = info;
  entry.expires = std::max(entry.expires, expires);
  entry.info.expires = entry.expires;
  entry.info.durability = durability;
  PutInMemory(entry, std::move(object));
  AnswerReadersFromMemory(entry, actions);
  // What the disk may still answer is of the object that was there before.
  if (const auto read = reads.find(info.key); read != reads.end()) {
    read->second.stale = true;
  }
  const bool durable = durability == Durability::kDurable;
  if (options.has_disk) QueueWrite(entry, durable);
  if (durable) {
    // What readers have been given is not taken back.
    entry.visible = !unknown;
    counters.commits += unknown ? 0 : 1;
    AwaitDurable(entry, {id, deadline, /*existed=*/false});
    return;
  }
  ++counters.commits;
  actions.push_back(action::Committed{id, info, false});
}

void Partition::Impl::CommitExisting(Entry& entry, RequestId id,
                                     const ObjectInfo& info, ObjectRef object,
                                     Durability durability, absl::Time expires,
                                     absl::Time deadline, Actions& actions) {
  ++counters.commits_existed;
  entry.expires = std::max(entry.expires, expires);
  entry.info.expires = entry.expires;
  entry.info.durability = std::max(entry.info.durability, durability);
  const bool waits =
      !entry.visible || (durability == Durability::kDurable && !entry.synced);
  if (!waits) {
    actions.push_back(action::Committed{id, entry.info, true});
    return;
  }
  if (entry.object == nullptr) {
    // On disk, not known to be synced. The same bytes can be written again.
    if (info.version != entry.info.version) {
      actions.push_back(action::Refused{
          id, absl::UnavailableError("the stored version is not in memory to "
                                     "be synced; read it first")});
      return;
    }
    PutInMemory(entry, std::move(object));
    AnswerReadersFromMemory(entry, actions);
  }
  AwaitDurable(entry, {id, deadline, /*existed=*/true});
  if (entry.write == Entry::Write::kInFlight && !entry.write_sync) {
    // Already under way without a sync: once more behind it.
    ++stale_writes[entry.info.key];
    entry.write = Entry::Write::kNone;
  }
  QueueWrite(entry, durability == Durability::kDurable);
}

Actions Partition::Read(RequestId id, const ChunkKey& key,
                        const std::string& ns, absl::Time deadline,
                        absl::Time now) {
  Actions actions;
  Entry* entry = impl_->FindVisible(key, ns);
  if (entry == nullptr) {
    impl_->CountTerminal(&PartitionCounters::misses);
    actions.push_back(action::Missed{id});
    return actions;
  }
  if (entry->object != nullptr) {
    impl_->CountTerminal(&PartitionCounters::hits_memory);
    impl_->policy.Access(entry->slot);
    ObjectInfo info = entry->info;
    info.tier = Tier::kMemory;
    actions.push_back(action::Found{id, info, entry->object});
    return actions;
  }
  if (impl_->waiting >= impl_->options.waiting_max) {
    impl_->CountTerminal(&PartitionCounters::failures);
    actions.push_back(action::Refused{
        id, absl::ResourceExhaustedError(absl::StrCat(
                impl_->waiting, " requests wait for the disk already"))});
    return actions;
  }
  const auto [read, is_new] = impl_->reads.try_emplace(key);
  if (read->second.stale) {
    impl_->CountTerminal(&PartitionCounters::misses);
    actions.push_back(action::Missed{id});
    return actions;
  }
  ++impl_->waiting;
  read->second.readers.push_back({id, deadline});
  if (is_new) impl_->read_queue.push_back(key);
  impl_->Advance(now, actions);
  return actions;
}

const ObjectInfo* Partition::Lookup(const ChunkKey& key,
                                    const std::string& ns) {
  Entry* entry = impl_->FindVisible(key, ns);
  if (entry == nullptr) {
    impl_->CountTerminal(&PartitionCounters::misses);
    return nullptr;
  }
  entry->info.tier = entry->object != nullptr ? Tier::kMemory : Tier::kDisk;
  impl_->CountTerminal(entry->object != nullptr
                           ? &PartitionCounters::hits_memory
                           : &PartitionCounters::hits_disk);
  return &entry->info;
}

void Partition::Impl::CountTerminal(uint64_t PartitionCounters::*what,
                                    uint64_t count) {
  counters.lookups += count;
  counters.*what += count;
}

void Partition::Impl::Advance(absl::Time now, Actions& actions) {
  StartWrites(actions);
  StartReads(now, actions);
  ServeReservations(now, actions);
}

}  // namespace kdn::storage
