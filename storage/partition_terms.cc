// What the stores of an object have asked for: commits that wait for the disk,
// and amendments of the TTL and the durability class of the disk's copy.
#include <algorithm>
#include <utility>

#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

void Partition::Impl::AwaitDisk(Entry& entry, const Committer& committer) {
  entry.committers.push_back(committer);
  deadlines[{committer.waiter.deadline, committer.waiter.id}] = {
      entry.info.key, /*is_commit=*/true};
}

void Partition::Impl::Acknowledge(Entry& entry, const Committer& committer,
                                  Actions& actions) {
  Terms terms{entry.info.expires, entry.info.durability};
  terms.Raise(committer.terms);
  entry.info.expires = terms.expires;
  entry.info.durability = terms.durability;
  actions.push_back(
      action::Committed{committer.waiter.id, entry.info, committer.existed});
}

void Partition::Impl::AcknowledgeFulfilled(Entry& entry, Actions& actions) {
  for (const Committer& committer : std::exchange(entry.committers, {})) {
    if (!entry.fulfils(committer.terms)) {
      entry.committers.push_back(committer);
      continue;
    }
    deadlines.erase({committer.waiter.deadline, committer.waiter.id});
    Acknowledge(entry, committer, actions);
  }
}

void Partition::Impl::RefuseCommitters(Entry& entry, const absl::Status& status,
                                       Actions& actions) {
  if (entry.committers.empty()) return;
  for (const Committer& committer : std::exchange(entry.committers, {})) {
    deadlines.erase({committer.waiter.deadline, committer.waiter.id});
    actions.push_back(action::Refused{committer.waiter.id, status});
  }
  CutTtl(entry);
}

void Partition::Impl::AmendIfNeeded(Entry& entry) {
  using Amend = Entry::Amend;
  if (!entry.needs_amendment()) return;
  if (entry.amend == Amend::kQueued || entry.amend == Amend::kInFlight) return;
  if (entry.amend == Amend::kFailed && entry.committers.empty()) return;
  entry.amend = Amend::kQueued;
  amend_queue.push_back(entry.info.key);
}

void Partition::Impl::QueueAmendments(absl::Time now) {
  while (!amend_retries.empty() && amend_retries.begin()->first <= now) {
    const auto [at, key] = *amend_retries.begin();
    amend_retries.erase(amend_retries.begin());
    const auto found = entries.find(key);
    if (found == entries.end() ||
        found->second.amend != Entry::Amend::kFailed ||
        found->second.amend_at != at) {
      continue;
    }
    found->second.amend = Entry::Amend::kQueued;
    amend_queue.push_back(key);
  }
}

void Partition::Impl::StartAmendments(absl::Time now, Actions& actions) {
  QueueAmendments(now);
  while (amendments_in_flight < options.disk_writes_max &&
         !amend_queue.empty()) {
    const ChunkKey key = amend_queue.front();
    amend_queue.pop_front();
    const auto found = entries.find(key);
    if (found == entries.end()) continue;
    Entry& entry = found->second;
    if (entry.amend != Entry::Amend::kQueued) continue;
    entry.amend = Entry::Amend::kNone;
    if (!entry.needs_amendment()) continue;
    entry.amend = Entry::Amend::kInFlight;
    entry.amend_terms = entry.terms();
    entry.amend_sync = entry.must_sync();
    ++amendments[key];
    ++amendments_in_flight;
    action::AmendOnDisk amend{entry.info, entry.amend_sync};
    amend.info.expires = entry.amend_terms.expires;
    amend.info.durability = entry.amend_terms.durability;
    actions.push_back(std::move(amend));
  }
}

Actions Partition::OnDiskAmended(const ChunkKey& key,
                                 const absl::Status& status, absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  const auto asked = impl_->amendments.find(key);
  KDN_CHECK(asked != impl_->amendments.end(),
            "the disk answers an amendment that it was not given");
  --impl_->amendments_in_flight;
  const bool last = --asked->second == 0;
  if (last) impl_->amendments.erase(asked);
  const auto found = impl_->entries.find(key);
  // An answer that is not the last one is about an object that is gone.
  if (last && found != impl_->entries.end() &&
      found->second.amend == Entry::Amend::kInFlight) {
    impl_->OnAmended(found->second, status, now, actions);
  }
  impl_->TellHolds(actions);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::OnAmended(Entry& entry, const absl::Status& status,
                                absl::Time now, Actions& actions) {
  entry.amend = Entry::Amend::kNone;
  // A copy that a later write makes does not need the amendment.
  if (!entry.on_disk) return;
  if (absl::IsNotFound(status)) return LoseDiskCopy(entry, now, actions);
  if (status.ok()) {
    entry.amend_failures = 0;
    entry.disk_terms = entry.amend_terms;
    entry.terms_synced = entry.amend_sync;
    AcknowledgeFulfilled(entry, actions);
    return AmendIfNeeded(entry);
  }
  entry.disk_terms.reset();
  ++entry.amend_failures;
  entry.amend = Entry::Amend::kFailed;
  entry.amend_at = now + RetryDelay(entry.amend_failures);
  amend_retries.emplace(entry.amend_at, entry.info.key);
  // If a write is on its way, the commits wait for the write.
  if (!entry.on_its_way()) RefuseCommitters(entry, status, actions);
}

}  // namespace kdn::storage
