// Leases, removal, time and the numbers of a partition.
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

absl::Status Partition::Pin(const ChunkKey& key, const std::string& ns,
                            SessionId session, absl::Time expires) {
  if (impl_->FindVisible(key, ns) == nullptr) {
    return absl::NotFoundError("no such chunk to pin");
  }
  return impl_->leases.Acquire(key, session, expires);
}

absl::Status Partition::Unpin(const ChunkKey& key, const std::string& ns,
                              SessionId session) {
  if (impl_->FindVisible(key, ns) == nullptr) {
    return absl::NotFoundError("no such chunk to unpin");
  }
  return impl_->leases.Release(key, session);
}

void Partition::ReleaseSession(SessionId session) {
  impl_->leases.ReleaseSession(session);
}

Actions Partition::Remove(RequestId id, const ChunkKey& key,
                          const std::string& ns, SessionId session) {
  Actions actions;
  const Entry* entry = impl_->FindVisible(key, ns);
  if (entry == nullptr) {
    const auto before = impl_->removals.find(key);
    // One that is being stored is not yet there to be removed.
    if (before != impl_->removals.end() && before->second.ns == ns &&
        !impl_->entries.contains(key)) {
      impl_->RemoveFromDisk(key, ns, before->second.shard, id, actions);
    } else {
      actions.push_back(
          action::Refused{id, absl::NotFoundError("no such chunk to remove")});
    }
    return actions;
  }
  if (impl_->leases.HeldByOther(key, session)) {
    actions.push_back(action::Refused{
        id,
        absl::FailedPreconditionError("another session has pinned the chunk")});
    return actions;
  }
  const ShardId shard = entry->info.shard;
  impl_->EraseEntry(key, absl::NotFoundError("removed"), actions);
  ++impl_->counters.removed;
  if (impl_->options.has_disk) {
    impl_->RemoveFromDisk(key, ns, shard, id, actions);
  } else {
    actions.push_back(action::Removed{id});
  }
  return actions;
}

Actions Partition::Discard(const ChunkKey& key, ObjectVersion version) {
  Actions actions;
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end() || found->second.info.version != version ||
      found->second.object == nullptr) {
    return actions;
  }
  ++impl_->counters.damaged;
  if (found->second.on_disk && found->second.write == Entry::Write::kNone) {
    // The disk's own copy proves itself when it is read.
    impl_->ForgetMemory(found->second);
    return actions;
  }
  const ObjectInfo info = found->second.info;
  impl_->EraseEntry(key, absl::DataLossError("damaged in memory"), actions);
  if (impl_->options.has_disk) {
    impl_->RemoveFromDisk(key, info.ns, info.shard, std::nullopt, actions);
  }
  return actions;
}

bool Partition::Held(const ChunkKey& key, absl::Time now) const {
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end()) return false;
  return found->second.expires > now || impl_->leases.Held(key, now);
}

Actions Partition::OnTick(absl::Time now) {
  Actions actions;
  impl_->leases.Expire(now);
  impl_->ExpireWaiters(now, actions);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::ExpireWaiters(absl::Time now, Actions& actions) {
  const auto late = [&](const auto& waiter) {
    if (waiter.deadline > now) return false;
    actions.push_back(action::Refused{
        waiter.id, absl::DeadlineExceededError("waited for the disk")});
    return true;
  };
  waiting -= static_cast<int>(
      std::erase_if(reservations, [&](const ReserveWaiter& waiter) {
        if (waiter.deadline > now) return false;
        actions.push_back(action::Refused{
            waiter.id, absl::ResourceExhaustedError(absl::StrCat(
                           "no room for ", waiter.bytes, " bytes in time; ",
                           arena->used_bytes(), " of ", arena->budget_bytes(),
                           " are held"))});
        return true;
      }));
  for (auto read = reads.begin(); read != reads.end();) {
    const size_t ended = std::erase_if(read->second.readers, late);
    CountTerminal(&PartitionCounters::failures, ended);
    waiting -= static_cast<int>(ended);
    // Nobody wants it any more, and the disk is not at it.
    const bool idle =
        read->second.readers.empty() && read->second.block == nullptr;
    if (idle) {
      const ChunkKey key = read->first;
      std::erase(read_queue, key);
      reads.erase(read++);
      ForgetIfNowhere(key, absl::NotFoundError("evicted"), actions);
    } else {
      ++read;
    }
  }
  absl::erase_if(committing, [&](const ChunkKey& key) {
    std::vector<Committer>& committers = entries.find(key)->second.committers;
    std::erase_if(committers, late);
    return committers.empty();
  });
}

PartitionCounters Partition::counters() const {
  PartitionCounters counters = impl_->counters;
  for (const auto& [key, entry] : impl_->entries) {
    if (!entry.visible) continue;
    ++counters.objects;
    if (entry.object != nullptr) ++counters.memory_objects;
    if (entry.on_disk) counters.disk_bytes += entry.info.bytes;
  }
  counters.memory_bytes = impl_->arena->used_bytes();
  counters.leases = static_cast<uint64_t>(impl_->leases.size());
  return counters;
}

void Partition::CheckInvariants() const {
  const Impl& impl = *impl_;
  const PartitionCounters& c = impl.counters;
  KDN_CHECK(c.hits_memory + c.hits_disk + c.misses + c.failures == c.lookups,
            "lookups do not conserve");
  int waiting = static_cast<int>(impl.reservations.size());
  int in_flight = 0;
  int writing = 0;
  for (const auto& [key, count] : impl.stale_writes) writing += count;
  for (const auto& [key, read] : impl.reads) {
    waiting += static_cast<int>(read.readers.size());
    in_flight += read.block != nullptr ? 1 : 0;
    KDN_CHECK(!read.stale || read.readers.empty(), "a stale read has readers");
  }
  KDN_CHECK(waiting == impl.waiting, "waiting requests are miscounted");
  KDN_CHECK(in_flight == impl.reads_in_flight, "reads are miscounted");
  for (const auto& [key, entry] : impl.entries) {
    const auto read = impl.reads.find(key);
    KDN_CHECK(entry.object == nullptr || read == impl.reads.end() ||
                  read->second.readers.empty(),
              "readers wait for the disk beside a memory copy");
    KDN_CHECK(entry.committers.empty() != impl.committing.contains(key),
              "who waits for a durable commit is miscounted");
    KDN_CHECK(entry.info.key == key, "an entry sits under another key");
    KDN_CHECK(!entry.nowhere() || read != impl.reads.end(),
              "an object is nowhere");
    KDN_CHECK(entry.write == Entry::Write::kNone || entry.object != nullptr,
              "a dirty object is not in memory");
    writing += entry.write == Entry::Write::kInFlight ? 1 : 0;
    KDN_CHECK(entry.on_disk || !entry.synced, "what is synced is on disk");
    KDN_CHECK(entry.visible || !entry.committers.empty() ||
                  entry.write != Entry::Write::kNone,
              "an invisible object waits for nothing");
  }
  KDN_CHECK(writing == impl.writes_in_flight &&
                writing <= impl.options.disk_writes_max,
            "writes are miscounted");
  size_t in_memory = 0;
  for (size_t slot = 0; slot < impl.by_slot.size(); ++slot) {
    const Entry* entry = impl.by_slot[slot];
    if (entry == nullptr) continue;
    ++in_memory;
    KDN_CHECK(entry->object != nullptr && entry->slot.value() == slot,
              "a slot leads to another entry");
  }
  KDN_CHECK(in_memory == impl.policy.size(), "a slot has no entry");
  impl.policy.CheckInvariants();
  impl.leases.CheckInvariants();
  impl.arena->CheckInvariants();
}

}  // namespace kdn::storage
