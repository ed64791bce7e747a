// The partition's dealings with the disk tier: writes behind, reads shared.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

void Partition::Impl::AwaitDurable(Entry& entry, Committer committer) {
  entry.committers.push_back(committer);
  committing.insert(entry.info.key);
}

void Partition::Impl::QueueWrite(Entry& entry, bool sync) {
  entry.write_sync = entry.write_sync || sync;
  if (entry.write != Entry::Write::kNone) return;
  entry.write = Entry::Write::kQueued;
  write_queue.push_back(entry.info.key);
}

void Partition::Impl::StartWrites(Actions& actions) {
  while (writes_in_flight < options.disk_writes_max && !write_queue.empty()) {
    const ChunkKey key = write_queue.front();
    write_queue.pop_front();
    const auto found = entries.find(key);
    if (found == entries.end() ||
        found->second.write != Entry::Write::kQueued) {
      continue;  // removed while it waited
    }
    Entry& entry = found->second;
    KDN_CHECK(entry.object != nullptr, "a dirty object is in memory");
    entry.write = Entry::Write::kInFlight;
    ++writes_in_flight;
    actions.push_back(
        action::WriteToDisk{entry.info, entry.object, entry.write_sync});
  }
}

bool Partition::HasUnwritten() const {
  return impl_->writes_in_flight > 0 || !impl_->write_queue.empty();
}

void Partition::Impl::OnWriteFailed(Entry& entry, const absl::Status& status,
                                    Actions& actions) {
  for (const Committer& waiter : entry.committers) {
    actions.push_back(action::Refused{waiter.id, status});
  }
  entry.committers.clear();
  committing.erase(entry.info.key);
  // A durable commit that failed was never visible; anything else stays, in
  // memory alone.
  if (!entry.visible) EraseEntry(entry.info.key, status, actions);
}

Actions Partition::OnDiskWritten(const ChunkKey& key,
                                 const absl::Status& status, absl::Time now) {
  Actions actions;
  --impl_->writes_in_flight;
  KDN_CHECK(impl_->writes_in_flight >= 0, "an answer to no write");
  const auto stale = impl_->stale_writes.find(key);
  if (stale != impl_->stale_writes.end()) {
    if (--stale->second == 0) impl_->stale_writes.erase(stale);
    impl_->Advance(now, actions);
    return actions;
  }
  const auto found = impl_->entries.find(key);
  KDN_CHECK(found != impl_->entries.end(), "a live write has its object");
  Entry& entry = found->second;
  entry.write = Entry::Write::kNone;
  if (!status.ok()) {
    impl_->OnWriteFailed(entry, status, actions);
    impl_->Advance(now, actions);
    return actions;
  }
  const bool synced = std::exchange(entry.write_sync, false);
  entry.on_disk = true;
  entry.synced = entry.synced || synced;
  if (!entry.visible) {
    entry.visible = true;
    ++impl_->counters.commits;
  }
  for (const Committer& waiter : entry.committers) {
    actions.push_back(action::Committed{waiter.id, entry.info, waiter.existed});
  }
  entry.committers.clear();
  impl_->committing.erase(key);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::AnswerReadersFromMemory(const Entry& entry,
                                              Actions& actions) {
  const auto read = reads.find(entry.info.key);
  if (read == reads.end()) return;
  AnswerReaders(entry, read->second, absl::OkStatus(), actions);
  waiting -= static_cast<int>(read->second.readers.size());
  read->second.readers.clear();
  if (read->second.block != nullptr) return;  // the disk is at it
  std::erase(read_queue, entry.info.key);
  reads.erase(read);
}

void Partition::Impl::StartReads(absl::Time now, Actions& actions) {
  while (reads_in_flight < options.disk_reads_max && !read_queue.empty()) {
    const ChunkKey key = read_queue.front();
    const auto read = reads.find(key);
    const auto entry = entries.find(key);
    if (read == reads.end() || read->second.block != nullptr ||
        entry == entries.end()) {
      read_queue.pop_front();
      continue;
    }
    KDN_CHECK(entry->second.object == nullptr,
              "what is in memory is not read from the disk");
    // Making room may erase entries, though never one that waits to be read.
    const ObjectInfo info = entry->second.info;
    std::shared_ptr<ArenaBlock> block = MakeRoom(info.bytes, now);
    if (block == nullptr) return;
    read_queue.pop_front();
    read->second.block = block;
    ++reads_in_flight;
    actions.push_back(action::ReadFromDisk{info, std::move(block)});
  }
}

Actions Partition::OnDiskRead(const ChunkKey& key, const absl::Status& status,
                              absl::Time now) {
  Actions actions;
  --impl_->reads_in_flight;
  const auto found = impl_->reads.find(key);
  KDN_CHECK(found != impl_->reads.end() && impl_->reads_in_flight >= 0,
            "an answer to no read");
  DiskRead read = std::move(found->second);
  impl_->reads.erase(found);
  impl_->waiting -= static_cast<int>(read.readers.size());
  const auto entry = impl_->entries.find(key);
  if (read.stale || entry == impl_->entries.end()) {
    KDN_CHECK(read.readers.empty(), "readers of a lost object were answered");
  } else {
    if (status.ok() && entry->second.object == nullptr) {
      impl_->PutInMemory(entry->second, read.block);
    }
    impl_->AnswerReaders(entry->second, read, status, actions);
    if (!status.ok()) impl_->OnReadFailed(entry->second, status);
    impl_->ForgetIfNowhere(key, status, actions);
  }
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::AnswerReaders(const Entry& entry, const DiskRead& read,
                                    const absl::Status& status,
                                    Actions& actions) {
  // A commit may have brought the same bytes while the disk was read.
  const bool found = entry.object != nullptr;
  const bool missing = !found && absl::IsNotFound(status);
  CountTerminal(found     ? &PartitionCounters::hits_disk
                : missing ? &PartitionCounters::misses
                          : &PartitionCounters::failures,
                read.readers.size());
  ObjectInfo info = entry.info;
  info.tier = Tier::kDisk;
  for (const Waiter& reader : read.readers) {
    if (found) {
      actions.push_back(action::Found{reader.id, info, entry.object});
    } else if (missing) {
      actions.push_back(action::Missed{reader.id});
    } else {
      actions.push_back(action::Refused{reader.id, status});
    }
  }
}

void Partition::Impl::OnReadFailed(Entry& entry, const absl::Status& status) {
  const bool gone = absl::IsDataLoss(status) || absl::IsNotFound(status);
  if (!gone) return;  // the disk may do better next time
  counters.damaged += absl::IsDataLoss(status) ? 1 : 0;
  entry.on_disk = false;
  entry.synced = false;
}

void Partition::Impl::ForgetIfNowhere(const ChunkKey& key,
                                      const absl::Status& why,
                                      Actions& actions) {
  const auto found = entries.find(key);
  if (found == entries.end() || !found->second.nowhere()) return;
  counters.evictions_lost += absl::IsDataLoss(why) ? 0 : 1;
  EraseEntry(key, why, actions);
}

void Partition::Impl::RemoveFromDisk(const ChunkKey& key, const std::string& ns,
                                     ShardId shard, std::optional<RequestId> id,
                                     Actions& actions) {
  DiskRemovals& removals_of_key = removals[key];
  removals_of_key.ns = ns;
  removals_of_key.shard = shard;
  removals_of_key.asked.push_back(id);
  actions.push_back(action::RemoveFromDisk{key, shard});
}

Actions Partition::OnDiskRemoved(const ChunkKey& key,
                                 const absl::Status& status) {
  Actions actions;
  const auto found = impl_->removals.find(key);
  KDN_CHECK(found != impl_->removals.end() && !found->second.asked.empty(),
            "an answer to no removal");
  DiskRemovals& removals = found->second;
  const std::optional<RequestId> id = removals.asked.front();
  removals.asked.pop_front();
  removals.failed = !status.ok();
  if (id && status.ok()) actions.push_back(action::Removed{*id});
  if (id && !status.ok()) {
    actions.push_back(action::Refused{
        *id, absl::UnavailableError(absl::StrCat(
                 "the disk would bring the chunk back: ", status.message(),
                 "; remove it again"))});
  }
  if (removals.asked.empty() && !removals.failed) impl_->removals.erase(found);
  return actions;
}

void Partition::OnEvictedFromDisk(const ChunkKey& key, ObjectVersion version) {
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end() || found->second.info.version != version) {
    return;
  }
  Entry& entry = found->second;
  entry.on_disk = false;
  entry.synced = false;
  // A read that waits or is under way still has to be answered.
  if (impl_->reads.contains(key)) return;
  Actions none;
  impl_->ForgetIfNowhere(key, absl::NotFoundError("evicted"), none);
  KDN_CHECK(none.empty(), "nobody waits for an object that only rests on disk");
}

}  // namespace kdn::storage
