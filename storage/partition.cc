#include "storage/partition.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

Partition::Partition(Options options, std::shared_ptr<BlockSource> blocks)
    : impl_(std::make_unique<Impl>(options, std::move(blocks))) {}
Partition::~Partition() = default;

Actions Partition::Restore(const ObjectInfo& info, absl::Time opened) {
  KDN_CHECK(impl_->options.has_disk, "a restored object is on a disk");
  Actions actions;
  const auto [at, is_new] = impl_->entries.try_emplace(info.key);
  if (!is_new) return actions;
  Entry& entry = at->second;
  entry.info = info;
  entry.on_disk = true;
  entry.synced = true;
  entry.disk_terms = entry.terms();
  impl_->Add(entry);
  if (info.expires > opened) impl_->leases.HoldUntil(info.key, info.expires);
  impl_->TellHolds(actions);
  impl_->DCheckEntry(entry);
  return actions;
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

void Partition::Impl::EraseEntry(const ChunkKey& key,
                                 const absl::Status& to_readers,
                                 Actions& actions) {
  const auto found = entries.find(key);
  KDN_CHECK(found != entries.end(), "only a known object can be erased");
  Entry& entry = found->second;
  if (entry.write == Entry::Write::kInFlight) ++stale_writes[key];
  if (entry.write == Entry::Write::kQueued) {
    // An object that goes is mostly an old one, and so near the front.
    const auto queued = std::find(write_queue.begin(), write_queue.end(), key);
    KDN_CHECK(queued != write_queue.end(), "a queued write is in the queue");
    write_queue.erase(queued);
  }
  RefuseCommitters(
      entry, absl::AbortedError("the object was removed meanwhile"), actions);
  AnswerHoldWaiters(entry, to_readers, actions);
  ForgetMemory(entry);
  const auto read = reads.find(key);
  if (read != reads.end()) {
    const bool missing = absl::IsNotFound(to_readers);
    CountTerminal(missing ? Metric("misses") : Metric("failures"),
                  read->second.readers.size());
    for (const Waiter& reader : TakeReaders(read->second)) {
      if (missing) {
        actions.push_back(action::Missed{reader.id});
      } else {
        actions.push_back(action::Refused{reader.id, to_readers});
      }
    }
    read->second.stale = true;
    if (read->second.block == nullptr) reads.erase(read);
  }
  leases.Forget(key);
  Subtract(entry);
  entries.erase(found);
}

Actions Partition::Commit(RequestId id, const ObjectInfo& info,
                          std::shared_ptr<ArenaBlock> block,
                          Durability durability, absl::Time expires,
                          absl::Time deadline, absl::Time now) {
  KDN_CHECK(block != nullptr && block->size() == info.bytes,
            "a commit brings the whole object");
  const CheckedEvent event(this);
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
    impl_->AmendIfNeeded(found->second);
  }
  impl_->TellHolds(actions);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::CommitNew(RequestId id, const ObjectInfo& info,
                                ObjectRef object, Durability durability,
                                absl::Time expires, absl::Time deadline,
                                Actions& actions) {
  const auto added = entries.try_emplace(info.key);
  const bool unknown = added.second;
  Entry& entry = added.first->second;
  if (unknown) Add(entry);
  const bool durable = durability == Durability::kDurable;
  // An earlier version is gone. What its stores were promised goes over to this
  // version.
  const Terms before =
      unknown ? Terms() : Terms{entry.info.expires, entry.info.durability};
  entry.info = info;
  entry.info.expires = before.expires;
  entry.info.durability = before.durability;
  leases.HoldUntil(info.key, expires);
  PutInMemory(entry, std::move(object), actions);
  AnswerReadersFromMemory(entry, actions);
  // A read in flight reads the earlier object.
  if (const auto read = reads.find(info.key); read != reads.end()) {
    read->second.stale = true;
  }
  if (options.has_disk) QueueWrite(entry, durable || entry.must_sync());
  const Committer committer{{id, deadline}, false, {expires, durability}};
  if (durable) {
    // Readers have seen the object already: it stays visible.
    Update(entry, [&](Entry& it) { it.visible = !unknown; });
    counters["commits"] += unknown ? 0 : 1;
    return AwaitDisk(entry, committer);
  }
  ++counters["commits"];
  Acknowledge(entry, committer, actions);
}

void Partition::Impl::CommitExisting(Entry& entry, RequestId id,
                                     const ObjectInfo& info, ObjectRef object,
                                     Durability durability, absl::Time expires,
                                     absl::Time deadline, Actions& actions) {
  ++counters["commits_existed"];
  const bool durable = durability == Durability::kDurable;
  const bool waits = !entry.visible || (durable && !entry.synced);
  const bool keeps =
      expires == absl::InfinitePast() || entry.hold == Entry::Hold::kConfirmed;
  if (entry.object == nullptr && (waits || !keeps) &&
      info.version == entry.info.version) {
    // The disk's copy may not be synced, or may be evicted before the disk
    // knows of the hold. The same bytes can be written again.
    PutInMemory(entry, std::move(object), actions);
    AnswerReadersFromMemory(entry, actions);
  }
  if (entry.object == nullptr && waits) {
    actions.push_back(action::Refused{
        id, absl::UnavailableError("the stored version is not in memory and "
                                   "cannot be synced: read it, then store "
                                   "it again")});
    return;
  }
  leases.HoldUntil(entry.info.key, expires);
  TellHolds(actions);
  WriteIfSole(entry);
  if (entry.object == nullptr && !keeps) {
    return AwaitHold(
        entry,
        {id, std::nullopt, std::nullopt, deadline, {expires, durability}},
        actions);
  }
  AskToConfirm(entry, actions);
  const Committer committer{{id, deadline}, true, {expires, durability}};
  if (entry.fulfils(committer.terms)) {
    return Acknowledge(entry, committer, actions);
  }
  AwaitDisk(entry, committer);
  if (waits) WriteAgain(entry, durable);
}

void Partition::Impl::WriteAgain(Entry& entry, bool sync) {
  if (entry.write == Entry::Write::kInFlight && !entry.write_sync) {
    // The write in flight does not sync: another write follows it.
    ++stale_writes[entry.info.key];
    Update(entry, [](Entry& it) { it.write = Entry::Write::kNone; });
  }
  QueueWrite(entry, sync);
}

Actions Partition::Read(RequestId id, const ChunkKey& key,
                        const std::string& ns, absl::Time deadline,
                        absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  Entry* entry = impl_->FindVisible(key, ns);
  if (entry == nullptr) {
    impl_->CountTerminal(Metric("misses"));
    actions.push_back(action::Missed{id});
    return actions;
  }
  if (entry->object != nullptr) {
    impl_->CountTerminal(Metric("hits_memory"));
    impl_->policy.Access(entry->slot);
    actions.push_back(impl_->Lend(*entry, id, Tier::kMemory));
    impl_->StartWrites(now, actions);
    return actions;
  }
  if (entry->info.bytes > impl_->blocks->budget_bytes()) {
    impl_->CountTerminal(Metric("failures"));
    actions.push_back(action::Refused{
        id, absl::ResourceExhaustedError(absl::StrCat(
                "the chunk takes ", entry->info.bytes,
                " bytes and is only on disk, and this partition has ",
                impl_->blocks->budget_bytes(),
                " bytes of memory: give the node more memory, or fewer "
                "storage_actors"))});
    return actions;
  }
  if (impl_->waiting() >= impl_->options.waiting_max) {
    impl_->CountTerminal(Metric("failures"));
    actions.push_back(action::Refused{
        id, absl::ResourceExhaustedError(absl::StrCat(
                impl_->waiting(), " requests wait for the disk already"))});
    return actions;
  }
  const auto [read, is_new] = impl_->reads.try_emplace(key);
  ++impl_->readers;
  read->second.readers.push_back({id, deadline});
  impl_->deadlines[{deadline, id}] = {key, /*is_commit=*/false};
  if (is_new) impl_->read_queue.push_back(key);
  impl_->Advance(now, actions);
  return actions;
}

const ObjectInfo* Partition::Lookup(const ChunkKey& key,
                                    const std::string& ns) {
  Entry* entry = impl_->FindVisible(key, ns);
  if (entry == nullptr) {
    impl_->CountTerminal(Metric("misses"));
    return nullptr;
  }
  entry->info.tier = entry->object != nullptr ? Tier::kMemory : Tier::kDisk;
  impl_->CountTerminal(entry->object != nullptr ? Metric("hits_memory")
                                                : Metric("hits_disk"));
  return &entry->info;
}

void Partition::Impl::CountTerminal(Metric what, uint64_t count) {
  counters["lookups"] += count;
  counters[what] += count;
}

void Partition::Impl::Advance(absl::Time now, Actions& actions) {
  StartWrites(now, actions);
  StartAmendments(now, actions);
  StartReads(actions);
  ServeReservations(actions);
}

}  // namespace kdn::storage
