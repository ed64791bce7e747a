// How the partition uses the disk tier: it writes objects after their commits,
// and readers of one object share a read.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {
namespace {

// The delay doubles with each failure.
constexpr absl::Duration kRetryMin = absl::Milliseconds(500);
constexpr absl::Duration kRetryMax = absl::Minutes(1);

}  // namespace

absl::Duration RetryDelay(int failures) {
  // 2^7 times the shortest delay is more than the longest.
  return std::min(kRetryMax, kRetryMin * (1 << std::min(failures - 1, 7)));
}

void Partition::Impl::SetOnDisk(Entry& entry, bool on_disk) {
  Update(entry, [on_disk](Entry& it) {
    it.on_disk = on_disk;
    if (!on_disk && it.hold != Entry::Hold::kNone) {
      it.hold = Entry::Hold::kUnconfirmed;
    }
  });
  entry.synced = entry.synced && on_disk;
}

void Partition::Impl::QueueWrite(Entry& entry, bool sync) {
  entry.write_sync = entry.write_sync || sync;
  CancelRetry(entry);
  if (entry.write != Entry::Write::kNone) return;
  Update(entry, [](Entry& it) { it.write = Entry::Write::kQueued; });
  write_queue.push_back(entry.info.key);
}

void Partition::Impl::WriteIfSole(Entry& entry) {
  if (!options.has_disk || !entry.sole()) return;
  if (entry.write == Entry::Write::kFailed) return;
  QueueWrite(entry, entry.must_sync());
}

void Partition::Impl::QueueRetries(absl::Time now) {
  int more = options.disk_writes_max - writes_in_flight -
             static_cast<int>(write_queue.size());
  for (; more > 0 && !retries.empty(); --more) {
    const auto [at, key] = *retries.begin();
    if (at > now) return;
    Entry& entry = entries.find(key)->second;
    QueueWrite(entry, entry.must_sync());
  }
}

void Partition::Impl::CancelRetry(Entry& entry) {
  if (entry.write != Entry::Write::kFailed) return;
  retries.erase({entry.retry_at, entry.info.key});
  entry.write = Entry::Write::kNone;
}

void Partition::Impl::StartWrites(absl::Time now, Actions& actions) {
  QueueRetries(now);
  while (writes_in_flight < options.disk_writes_max && !write_queue.empty()) {
    const ChunkKey key = write_queue.front();
    write_queue.pop_front();
    const auto found = entries.find(key);
    KDN_CHECK(
        found != entries.end() && found->second.write == Entry::Write::kQueued,
        "the queue has exactly the entries that are queued");
    Entry& entry = found->second;
    KDN_CHECK(entry.object != nullptr, "a dirty object is in memory");
    entry.write = Entry::Write::kInFlight;
    entry.read_since_write = false;
    entry.evicted_meanwhile = false;
    entry.write_terms = entry.terms();
    ++writes_in_flight;
    action::WriteToDisk write{entry.info, entry.object, entry.write_sync};
    write.info.expires = entry.write_terms.expires;
    write.info.durability = entry.write_terms.durability;
    actions.push_back(std::move(write));
  }
}

bool Partition::HasUnwritten() const {
  return impl_->writes_in_flight > 0 || !impl_->write_queue.empty() ||
         impl_->amendments_in_flight > 0 || !impl_->amend_queue.empty();
}

Actions Partition::Flush(absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  while (!impl_->retries.empty()) {
    const ChunkKey key = impl_->retries.begin()->second;
    Entry& entry = impl_->entries.find(key)->second;
    impl_->QueueWrite(entry, entry.must_sync());
  }
  impl_->QueueAmendments(absl::InfiniteFuture());
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::OnWriteFailed(Entry& entry, const absl::Status& status,
                                    absl::Time now, Actions& actions) {
  entry.write_sync = false;
  ++counters["disk_write_failures"];
  ++entry.write_failures;
  action::WriteFailed failed{entry.info.key, status, entry.write_failures};
  // The disk may have written the record all the same.
  if (entry.disk_terms != entry.write_terms) entry.disk_terms.reset();
  RefuseCommitters(entry, status, actions);
  if (!entry.visible) {
    // A durable commit that failed was never visible.
    actions.push_back(failed);
    EraseEntry(entry.info.key, status, actions);
    return;
  }
  if (!entry.on_disk) {
    failed.again_in = RetryDelay(entry.write_failures);
    entry.write = Entry::Write::kFailed;
    entry.retry_at = now + failed.again_in;
    retries.emplace(entry.retry_at, entry.info.key);
  }
  AmendIfNeeded(entry);
  actions.push_back(failed);
}

Actions Partition::OnDiskWritten(const ChunkKey& key,
                                 const absl::Status& status, absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  --impl_->writes_in_flight;
  KDN_CHECK(impl_->writes_in_flight >= 0,
            "the disk answers a write that it was not given");
  const auto stale = impl_->stale_writes.find(key);
  if (stale != impl_->stale_writes.end()) {
    if (--stale->second == 0) impl_->stale_writes.erase(stale);
    impl_->Advance(now, actions);
    return actions;
  }
  const auto found = impl_->entries.find(key);
  KDN_CHECK(found != impl_->entries.end(), "a write in flight has its object");
  Entry& entry = found->second;
  impl_->Update(entry, [](Entry& it) { it.write = Entry::Write::kNone; });
  if (status.ok()) {
    impl_->OnWritten(entry, actions);
  } else {
    impl_->OnWriteFailed(entry, status, now, actions);
  }
  impl_->TellHolds(actions);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::OnWritten(Entry& entry, Actions& actions) {
  const bool synced = std::exchange(entry.write_sync, false);
  entry.write_failures = 0;
  SetOnDisk(entry, true);
  entry.synced = entry.synced || synced;
  entry.disk_terms = entry.write_terms;
  entry.terms_synced = true;
  // A read that is still in flight may have seen the record before this one, or
  // none. Its error says nothing about this record.
  if (const auto read = reads.find(entry.info.key); read != reads.end()) {
    read->second.stale = true;
  }
  if (!entry.visible) {
    Update(entry, [](Entry& it) { it.visible = true; });
    ++counters["commits"];
  }
  AcknowledgeFulfilled(entry, actions);
  if (entry.evicted_meanwhile) {
    // The evicted record may be the new one, so the object is written again.
    SetOnDisk(entry, false);
    QueueWrite(entry, entry.must_sync());
  }
  AskToConfirm(entry, actions);
  AmendIfNeeded(entry);
}

std::vector<Waiter> Partition::Impl::TakeReaders(DiskRead& read) {
  for (const Waiter& reader : read.readers) {
    deadlines.erase({reader.deadline, reader.id});
  }
  readers -= static_cast<int>(read.readers.size());
  return std::exchange(read.readers, {});
}

void Partition::Impl::AnswerReadersFromMemory(Entry& entry, Actions& actions) {
  const auto read = reads.find(entry.info.key);
  if (read == reads.end()) return;
  AnswerReaders(entry, read->second, absl::OkStatus(), actions);
  if (read->second.block != nullptr) return;  // in flight
  std::erase(read_queue, entry.info.key);
  reads.erase(read);
}

void Partition::Impl::StartReads(Actions& actions) {
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
              "an object in memory is not read from the disk");
    // Making room may erase entries, but not this one: it is not in memory.
    const ObjectInfo info = entry->second.info;
    std::shared_ptr<ArenaBlock> block = MakeRoom(info.bytes);
    if (block == nullptr) return;
    read_queue.pop_front();
    read->second.block = block;
    ++reads_in_flight;
    actions.push_back(action::ReadFromDisk{info, std::move(block)});
  }
}

Actions Partition::OnDiskRead(const ChunkKey& key, const absl::Status& status,
                              absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  --impl_->reads_in_flight;
  const auto found = impl_->reads.find(key);
  KDN_CHECK(found != impl_->reads.end() && impl_->reads_in_flight >= 0,
            "the disk answers a read that it was not given");
  DiskRead read = std::move(found->second);
  impl_->reads.erase(found);
  const auto entry = impl_->entries.find(key);
  if (read.stale || entry == impl_->entries.end()) {
    impl_->ReadAgain(key, std::move(read.readers));
    impl_->ForgetIfNowhere(key, absl::NotFoundError("evicted"), now, actions);
  } else {
    if (status.ok() && entry->second.object == nullptr) {
      impl_->PutInMemory(entry->second, read.block, actions);
      // The disk may have evicted the object during the read. The read makes
      // the object hot, so it is written again.
      impl_->WriteIfSole(entry->second);
    }
    impl_->AnswerReaders(entry->second, read, status, actions);
    if (!status.ok()) impl_->OnReadFailed(entry->second, status);
    impl_->ForgetIfNowhere(key, status, now, actions);
  }
  impl_->TellHolds(actions);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::ReadAgain(const ChunkKey& key,
                                std::vector<Waiter> waiting) {
  if (waiting.empty()) return;
  KDN_CHECK(entries.contains(key), "readers of a lost object were answered");
  reads[key].readers = std::move(waiting);
  read_queue.push_back(key);
}

void Partition::Impl::AnswerReaders(Entry& entry, DiskRead& read,
                                    const absl::Status& status,
                                    Actions& actions) {
  // Besides the read, a commit may have brought the object into memory.
  const bool found = entry.object != nullptr;
  const bool missing = !found && absl::IsNotFound(status);
  CountTerminal(found     ? Metric("hits_disk")
                : missing ? Metric("misses")
                          : Metric("failures"),
                read.readers.size());
  for (const Waiter& reader : TakeReaders(read)) {
    if (found) {
      actions.push_back(Lend(entry, reader.id, Tier::kDisk));
    } else if (missing) {
      actions.push_back(action::Missed{reader.id});
    } else {
      actions.push_back(action::Refused{reader.id, status});
    }
  }
}

void Partition::Impl::OnReadFailed(Entry& entry, const absl::Status& status) {
  const bool gone = absl::IsDataLoss(status) || absl::IsNotFound(status);
  if (!gone) return;  // the next read may succeed
  counters["damaged"] += absl::IsDataLoss(status) ? 1 : 0;
  SetOnDisk(entry, false);
  // A commit has brought the bytes meanwhile, so the disk gets a new copy.
  if (entry.object != nullptr) QueueWrite(entry, entry.must_sync());
}

void Partition::Impl::ForgetIfNowhere(const ChunkKey& key,
                                      const absl::Status& why, absl::Time now,
                                      Actions& actions) {
  const auto found = entries.find(key);
  if (found == entries.end() || !found->second.nowhere()) return;
  Entry& entry = found->second;
  // If only a pin or TTL that was not acknowledged holds the object, no promise
  // is broken: the request that waits is refused.
  RefuseCommitters(entry, absl::UnavailableError(kVersionIsGone), actions);
  if (leases.Held(key, now) &&
      (entry.hold_waiters.empty() || entry.info.expires > now)) {
    actions.push_back(action::HeldLost{key});
  }
  counters["evictions_lost"] += absl::IsDataLoss(why) ? 0 : 1;
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
  const CheckedEvent event(this);
  Actions actions;
  const auto found = impl_->removals.find(key);
  KDN_CHECK(found != impl_->removals.end() && !found->second.asked.empty(),
            "the disk answers a removal that it was not given");
  DiskRemovals& removals = found->second;
  const std::optional<RequestId> id = removals.asked.front();
  removals.asked.pop_front();
  removals.failed = !status.ok();
  if (id && status.ok()) actions.push_back(action::Removed{*id});
  if (id && !status.ok()) {
    actions.push_back(action::Refused{
        *id, absl::UnavailableError(absl::StrCat(
                 "the disk may bring the chunk back: ", status.message(),
                 "; remove it again"))});
  }
  if (removals.asked.empty() && !removals.failed) impl_->removals.erase(found);
  return actions;
}

Actions Partition::OnEvictedFromDisk(const ChunkKey& key, ObjectVersion version,
                                     absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end() || found->second.info.version != version) {
    return actions;
  }
  impl_->LoseDiskCopy(found->second, now, actions);
  impl_->TellHolds(actions);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::LoseDiskCopy(Entry& entry, absl::Time now,
                                   Actions& actions) {
  const ChunkKey key = entry.info.key;
  SetOnDisk(entry, false);
  entry.evicted_meanwhile = entry.write == Entry::Write::kInFlight;
  if (entry.object != nullptr) {
    if (entry.read_since_write || entry.hold != Entry::Hold::kNone ||
        !entry.committers.empty()) {
      WriteIfSole(entry);
    }
    return;
  }
  // A read that waits or is in flight is answered first. It may still succeed.
  if (reads.contains(key)) return;
  ForgetIfNowhere(key, absl::NotFoundError("evicted"), now, actions);
}

}  // namespace kdn::storage
