// The invariants of a partition, and its counters.
#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

MetricValues Partition::counters() const {
  MetricValues counters = impl_->counters;
  counters["objects"] = impl_->totals.objects;
  counters["memory_objects"] = impl_->totals.memory_objects;
  counters["disk_bytes"] = impl_->totals.disk_bytes;
  counters["memory_bytes"] = impl_->blocks->used_bytes();
  counters["leases"] = static_cast<uint64_t>(impl_->leases.size());
  return counters;
}

void Partition::CheckInvariants() const {
  const MetricValues& c = impl_->counters;
  KDN_CHECK(c["hits_memory"] + c["hits_disk"] + c["misses"] + c["failures"] ==
                c["lookups"],
            "hits, misses and failures do not add up to the lookups");
  impl_->CheckEntries();
  impl_->CheckRequests();
  impl_->policy.CheckInvariants();
  impl_->leases.CheckInvariants();
  impl_->reservations.CheckInvariants();
  impl_->blocks->CheckInvariants();
}

void Partition::Impl::CheckEntries() const {
  int writing = 0;
  for (const auto& [key, count] : stale_writes) writing += count;
  size_t queued = 0;
  size_t failed = 0;
  size_t in_memory = 0;
  int amending = 0;
  for (const auto& [key, count] : amendments) amending += count;
  KDN_CHECK(
      amending == amendments_in_flight && amending <= options.disk_writes_max,
      "amendments are miscounted");
  Totals walked;
  for (const auto& [key, entry] : entries) {
    KDN_CHECK(entry.info.key == key,
              "an entry has another key than its object");
    CheckEntry(entry);
    writing += entry.write == Entry::Write::kInFlight ? 1 : 0;
    queued += entry.write == Entry::Write::kQueued ? 1 : 0;
    failed += entry.write == Entry::Write::kFailed ? 1 : 0;
    in_memory += entry.object != nullptr ? 1 : 0;
    Count(entry, walked, 1);
  }
  KDN_CHECK(walked == totals,
            "the totals differ from a count over all entries");
  KDN_CHECK(in_memory == policy.size(),
            "the eviction policy has other objects than memory");
  KDN_CHECK(queued == write_queue.size(), "the queue has another write");
  KDN_CHECK(failed == retries.size(), "a retry has no failed write");
  KDN_CHECK(writing == writes_in_flight && writing <= options.disk_writes_max,
            "writes are miscounted");
}

void Partition::Impl::CheckEntry(const Entry& entry) const {
  const auto read = reads.find(entry.info.key);
  const bool in_memory = entry.object != nullptr;
  KDN_CHECK(
      in_memory == (entry.slot != kNoSlot) && in_memory == (entry.copy != 0),
      "a memory copy has a slot and a name");
  KDN_CHECK(!in_memory || by_slot[entry.slot.value()] == &entry,
            "a slot leads to another entry");
  KDN_CHECK(in_memory || entry.loans == 0,
            "there is a loan without a memory copy");
  KDN_CHECK(!in_memory || read == reads.end() || read->second.readers.empty(),
            "readers wait for the disk beside a memory copy");
  KDN_CHECK(!entry.nowhere() || read != reads.end(),
            "an object is neither in memory nor on disk nor being read");
  KDN_CHECK(entry.write == Entry::Write::kNone || in_memory,
            "a dirty object is not in memory");
  KDN_CHECK(entry.write != Entry::Write::kFailed ||
                retries.contains({entry.retry_at, entry.info.key}),
            "a failed write is not tried again");
  KDN_CHECK(!options.has_disk || !entry.sole() ||
                entry.write == Entry::Write::kFailed ||
                (!entry.read_since_write && entry.hold == Entry::Hold::kNone),
            "only memory has an object that is in use, and no write comes");
  KDN_CHECK(entry.on_disk || !entry.synced, "a synced object is on disk");
  KDN_CHECK(entry.hold_waiters.empty() ||
                (!in_memory &&
                 (entry.hold == Entry::Hold::kAsked || entry.nowhere())),
            "a pin or TTL waits for nothing");
  KDN_CHECK(entry.hold != Entry::Hold::kAsked ||
                (entry.on_disk && confirms.contains(entry.info.key)),
            "the disk was not asked to confirm");
  KDN_CHECK(!in_memory || !entry.on_disk ||
                entry.hold != Entry::Hold::kUnconfirmed ||
                confirm_retries.contains({entry.confirm_at, entry.info.key}),
            "the disk is not asked again to confirm");
  KDN_CHECK(entry.visible || !entry.committers.empty() ||
                entry.write != Entry::Write::kNone,
            "an invisible object waits for nothing");
  KDN_CHECK(!entry.needs_amendment() || entry.amend != Entry::Amend::kNone,
            "the disk does not learn of a TTL or a durability class");
  KDN_CHECK(entry.amend != Entry::Amend::kFailed ||
                amend_retries.contains({entry.amend_at, entry.info.key}),
            "a failed amendment is not tried again");
  KDN_CHECK(entry.amend != Entry::Amend::kInFlight ||
                amendments.contains(entry.info.key),
            "the disk was not asked to amend");
  KDN_CHECK(entry.committers.empty() || entry.on_its_way() || entry.nowhere() ||
                (entry.on_disk && (entry.amend == Entry::Amend::kQueued ||
                                   entry.amend == Entry::Amend::kInFlight)),
            "a commit waits for nothing");
  for (const Committer& committer : entry.committers) {
    KDN_CHECK(
        deadlines.contains({committer.waiter.deadline, committer.waiter.id}),
        "a commit has no deadline");
  }
}

void Partition::Impl::CheckRequests() const {
  size_t waiting_readers = 0;
  size_t committers = 0;
  int in_flight = 0;
  for (const auto& [key, read] : reads) {
    waiting_readers += read.readers.size();
    in_flight += read.block != nullptr ? 1 : 0;
    KDN_CHECK(!read.stale || read.block != nullptr,
              "a read that is not in flight is stale");
    for (const Waiter& reader : read.readers) {
      KDN_CHECK(deadlines.contains({reader.deadline, reader.id}),
                "a reader has no deadline");
    }
  }
  for (const auto& [key, entry] : entries) {
    committers += entry.committers.size();
    for (const HoldWaiter& waiter : entry.hold_waiters) {
      committers += waiter.session ? 0 : 1;
    }
  }
  KDN_CHECK(waiting_readers == static_cast<size_t>(readers),
            "readers are miscounted");
  KDN_CHECK(deadlines.size() == waiting_readers + committers,
            "a deadline has no request");
  KDN_CHECK(in_flight == reads_in_flight, "reads are miscounted");
}

}  // namespace kdn::storage
