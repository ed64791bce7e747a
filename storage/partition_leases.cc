// Leases, removal and time of a partition.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

Actions Partition::Pin(RequestId id, const ChunkKey& key, const std::string& ns,
                       SessionId session, absl::Time expires) {
  const CheckedEvent event(this);
  Actions actions;
  absl::Status status = absl::NotFoundError("no such chunk to pin");
  Entry* const entry = impl_->FindVisible(key, ns);
  const std::optional<absl::Time> lease_before =
      impl_->leases.LeaseEnd(key, session);
  if (entry != nullptr) status = impl_->leases.Acquire(key, session, expires);
  // HoldChanged comes before Pinned: when the engine hears of the pin, the
  // object is held.
  impl_->TellHolds(actions);
  if (!status.ok()) {
    impl_->EndPin(id, status, actions);
    return actions;
  }
  if (entry->object == nullptr && entry->hold != Entry::Hold::kConfirmed) {
    impl_->AwaitHold(*entry, {id, session, lease_before, {}, {}}, actions);
    return actions;
  }
  impl_->AskToConfirm(*entry, actions);
  impl_->EndPin(id, status, actions);
  return actions;
}

Actions Partition::Unpin(RequestId id, const ChunkKey& key,
                         const std::string& ns, SessionId session) {
  const CheckedEvent event(this);
  Actions actions;
  absl::Status status = absl::NotFoundError("no such chunk to unpin");
  if (impl_->FindVisible(key, ns) != nullptr) {
    status = impl_->leases.Release(key, session);
  }
  impl_->TellHolds(actions);
  impl_->EndPin(id, status, actions);
  return actions;
}

void Partition::Impl::EndPin(RequestId id, const absl::Status& status,
                             Actions& actions) {
  if (status.ok()) {
    actions.push_back(action::Pinned{id});
  } else {
    actions.push_back(action::Refused{id, status});
  }
}

Actions Partition::ReleaseSession(SessionId session) {
  const CheckedEvent event(this);
  Actions actions;
  impl_->leases.ReleaseSession(session);
  impl_->TellHolds(actions);
  return actions;
}

void Partition::Impl::TellHolds(Actions& actions) {
  for (const HoldChange& change : leases.TakeChanges()) {
    actions.push_back(action::HoldChanged{change.key, change.held});
    const auto found = entries.find(change.key);
    if (found == entries.end()) continue;
    Entry& entry = found->second;
    Update(entry, [&](Entry& it) {
      it.hold = change.held ? Entry::Hold::kUnconfirmed : Entry::Hold::kNone;
    });
    if (change.held) WriteIfSole(entry);
    AskToConfirm(entry, actions);
  }
  for (const HoldEnd& end : leases.TakeEnds()) RefuseHoldWaiters(end, actions);
}

void Partition::Impl::RefuseHoldWaiters(const HoldEnd& end, Actions& actions) {
  const auto found = entries.find(end.key);
  if (found == entries.end() || leases.Has(end.key, end.session)) return;
  Entry& entry = found->second;
  for (const HoldWaiter& waiter : std::exchange(entry.hold_waiters, {})) {
    if (waiter.session != end.session) {
      entry.hold_waiters.push_back(waiter);
      continue;
    }
    AnswerHoldWaiter(entry, waiter,
                     absl::DeadlineExceededError("the pin or TTL ended before "
                                                 "the disk had confirmed it"),
                     actions);
  }
}

void Partition::Impl::AwaitHold(Entry& entry, const HoldWaiter& waiter,
                                Actions& actions) {
  if (!waiter.session) {
    deadlines[{waiter.deadline, waiter.id}] = {entry.info.key,
                                               /*is_commit=*/true};
  }
  entry.hold_waiters.push_back(waiter);
  AskToConfirm(entry, actions);
}

void Partition::Impl::AskToConfirm(Entry& entry, Actions& actions) {
  if (entry.hold != Entry::Hold::kUnconfirmed || !entry.on_disk) return;
  if (entry.object == nullptr && entry.hold_waiters.empty()) return;
  entry.hold = Entry::Hold::kAsked;
  ++confirms[entry.info.key];
  actions.push_back(action::ConfirmHold{entry.info.key, entry.info.shard});
}

Actions Partition::OnDiskHeld(const ChunkKey& key, const absl::Status& status,
                              absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  const auto asked = impl_->confirms.find(key);
  KDN_CHECK(asked != impl_->confirms.end(),
            "the disk answers a ConfirmHold that it was not given");
  const bool last = --asked->second == 0;
  if (last) impl_->confirms.erase(asked);
  const auto found = impl_->entries.find(key);
  if (last && found != impl_->entries.end() &&
      found->second.hold == Entry::Hold::kAsked) {
    impl_->OnConfirmAnswer(found->second, status, now, actions);
  }
  impl_->TellHolds(actions);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::OnConfirmAnswer(Entry& entry, const absl::Status& status,
                                      absl::Time now, Actions& actions) {
  if (absl::IsNotFound(status)) return LoseDiskCopy(entry, now, actions);
  Update(entry, [&](Entry& it) {
    it.hold = status.ok() ? Entry::Hold::kConfirmed : Entry::Hold::kUnconfirmed;
  });
  if (!status.ok()) TakeBackLeases(entry);
  AnswerHoldWaiters(entry, status, actions);
  entry.confirm_failures = status.ok() ? 0 : entry.confirm_failures + 1;
  if (status.ok() || entry.object == nullptr) return;
  entry.confirm_at = now + RetryDelay(entry.confirm_failures);
  confirm_retries.emplace(entry.confirm_at, entry.info.key);
}

void Partition::Impl::TakeBackLeases(const Entry& entry) {
  const ChunkKey& key = entry.info.key;
  const std::vector<HoldWaiter>& waiters = entry.hold_waiters;
  // The last pin first: a session may have several pins that wait.
  for (auto pin = waiters.rbegin(); pin != waiters.rend(); ++pin) {
    if (!pin->session) continue;
    if (pin->lease_before) {
      leases.Acquire(key, *pin->session, *pin->lease_before).IgnoreError();
    } else {
      leases.Release(key, *pin->session).IgnoreError();
    }
  }
}

void Partition::Impl::RetryConfirms(absl::Time now, Actions& actions) {
  while (!confirm_retries.empty() && confirm_retries.begin()->first <= now) {
    const ChunkKey key = confirm_retries.begin()->second;
    confirm_retries.erase(confirm_retries.begin());
    const auto found = entries.find(key);
    if (found != entries.end()) AskToConfirm(found->second, actions);
  }
}

void Partition::Impl::AnswerHoldWaiters(Entry& entry,
                                        const absl::Status& status,
                                        Actions& actions) {
  for (const HoldWaiter& waiter : std::exchange(entry.hold_waiters, {})) {
    AnswerHoldWaiter(entry, waiter, status, actions);
  }
}

void Partition::Impl::AnswerHoldWaiter(Entry& entry, const HoldWaiter& waiter,
                                       const absl::Status& status,
                                       Actions& actions) {
  if (waiter.session) return EndPin(waiter.id, status, actions);
  deadlines.erase({waiter.deadline, waiter.id});
  if (status.ok()) {
    AwaitDisk(entry,
              {{waiter.id, waiter.deadline}, /*existed=*/true, waiter.terms});
    AcknowledgeFulfilled(entry, actions);
    return AmendIfNeeded(entry);
  }
  CutTtl(entry);
  if (absl::IsNotFound(status) || absl::IsDataLoss(status)) {
    actions.push_back(
        action::Refused{waiter.id, absl::UnavailableError(kVersionIsGone)});
  } else {
    actions.push_back(action::Refused{waiter.id, status});
  }
}

void Partition::Impl::CutTtl(Entry& entry) {
  absl::Time expires = entry.terms().expires;
  for (const HoldWaiter& waiter : entry.hold_waiters) {
    if (!waiter.session) expires = std::max(expires, waiter.terms.expires);
  }
  leases.CutTtl(entry.info.key, expires);
  AmendIfNeeded(entry);
}

Actions Partition::Remove(RequestId id, const ChunkKey& key,
                          const std::string& ns, SessionId session) {
  const CheckedEvent event(this);
  Actions actions;
  const Entry* entry = impl_->FindVisible(key, ns);
  if (entry == nullptr) {
    const auto before = impl_->removals.find(key);
    // An object that is being stored cannot be removed yet.
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
  ++impl_->counters["removed"];
  impl_->TellHolds(actions);
  if (impl_->options.has_disk) {
    impl_->RemoveFromDisk(key, ns, shard, id, actions);
  } else {
    actions.push_back(action::Removed{id});
  }
  return actions;
}

Actions Partition::Discard(const ChunkKey& key, ObjectVersion version) {
  const CheckedEvent event(this);
  Actions actions;
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end() || found->second.info.version != version ||
      found->second.object == nullptr) {
    return actions;
  }
  ++impl_->counters["damaged"];
  if (found->second.on_disk && found->second.write == Entry::Write::kNone) {
    // The next read checks the disk's copy.
    impl_->ForgetMemory(found->second);
    return actions;
  }
  const ObjectInfo info = found->second.info;
  impl_->EraseEntry(key, absl::DataLossError("damaged in memory"), actions);
  impl_->TellHolds(actions);
  if (impl_->options.has_disk) {
    impl_->RemoveFromDisk(key, info.ns, info.shard, std::nullopt, actions);
  }
  return actions;
}

const ObjectInfo* Partition::Find(const ChunkKey& key) const {
  const auto found = impl_->entries.find(key);
  return found == impl_->entries.end() ? nullptr : &found->second.info;
}

bool Partition::Held(const ChunkKey& key, absl::Time now) const {
  return impl_->leases.Held(key, now);
}

Actions Partition::OnTick(absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  impl_->ExpireReservations(now, actions);
  impl_->ExpireWaiters(now, actions);
  // After the waiters: a refused commit may leave a TTL that has ended.
  impl_->leases.Expire(now);
  impl_->TellHolds(actions);
  impl_->RetryConfirms(now, actions);
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::ExpireWaiters(absl::Time now, Actions& actions) {
  while (!deadlines.empty() && deadlines.begin()->first.first <= now) {
    const auto [waiter, ends] = *deadlines.begin();
    const RequestId id = waiter.second;
    deadlines.erase(deadlines.begin());
    actions.push_back(action::Refused{
        id, absl::DeadlineExceededError(
                "the disk did not answer before the request's deadline")});
    if (!ends.is_commit) {
      ExpireReader(ends.key, id, now, actions);
      continue;
    }
    Entry& entry = entries.find(ends.key)->second;
    std::erase_if(entry.committers,
                  [id](const Committer& it) { return it.waiter.id == id; });
    std::erase_if(entry.hold_waiters,
                  [id](const HoldWaiter& it) { return it.id == id; });
    CutTtl(entry);
  }
}

void Partition::Impl::ExpireReader(const ChunkKey& key, RequestId id,
                                   absl::Time now, Actions& actions) {
  const auto read = reads.find(key);
  const size_t ended =
      std::erase_if(read->second.readers,
                    [id](const Waiter& reader) { return reader.id == id; });
  KDN_CHECK(ended == 1, "the reader of a deadline waits");
  --readers;
  CountTerminal(Metric("failures"));
  if (!read->second.readers.empty() || read->second.block != nullptr) return;
  // No reader is left, and the read is not in flight.
  std::erase(read_queue, key);
  reads.erase(read);
  ForgetIfNowhere(key, absl::NotFoundError("evicted"), now, actions);
}

}  // namespace kdn::storage
