// The partition's dealings with the disk tier: writes behind, reads shared.
#include <algorithm>
#include <utility>

#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

void Partition::Impl::AwaitDurable(Entry& entry, Waiter waiter) {
  entry.committers.push_back(waiter);
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

void Partition::Impl::OnWriteFailed(Entry& entry, const absl::Status& status,
                                    Actions& actions) {
  for (const Waiter& waiter : entry.committers) {
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
  for (size_t i = 0; i < entry.committers.size(); ++i) {
    actions.push_back(
        action::Committed{entry.committers[i].id, entry.info, i > 0});
  }
  entry.committers.clear();
  impl_->committing.erase(key);
  impl_->Advance(now, actions);
  return actions;
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
    std::shared_ptr<ArenaBlock> block = MakeRoom(entry->second.info.bytes, now);
    if (block == nullptr) return;
    read_queue.pop_front();
    read->second.block = block;
    ++reads_in_flight;
    actions.push_back(
        action::ReadFromDisk{entry->second.info, std::move(block)});
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
  } else if (status.ok()) {
    if (entry->second.object == nullptr) {
      impl_->PutInMemory(entry->second, read.block);
    }
    impl_->CountTerminal(&PartitionCounters::hits_disk, read.readers.size());
    ObjectInfo info = entry->second.info;
    info.tier = Tier::kDisk;
    for (const Waiter& reader : read.readers) {
      actions.push_back(action::Found{reader.id, info, entry->second.object});
    }
  } else {
    impl_->CountTerminal(&PartitionCounters::failures, read.readers.size());
    for (const Waiter& reader : read.readers) {
      actions.push_back(action::Refused{reader.id, status});
    }
    if (absl::IsDataLoss(status) || absl::IsNotFound(status) ||
        !entry->second.on_disk) {
      impl_->counters.damaged += absl::IsDataLoss(status) ? 1 : 0;
      impl_->EraseEntry(key, status, actions);
    }
  }
  impl_->Advance(now, actions);
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
  const bool being_read = impl_->reads.contains(key);
  if (entry.object != nullptr || being_read) return;  // the read will tell
  ++impl_->counters.evictions_lost;
  Actions none;
  impl_->EraseEntry(key, absl::NotFoundError("evicted"), none);
  KDN_CHECK(none.empty(), "nobody waits for an object that only rests on disk");
}

}  // namespace kdn::storage
