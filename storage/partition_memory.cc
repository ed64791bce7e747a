// How the partition uses memory: eviction, reservations, loans to readers.
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "storage/partition_impl.h"

namespace kdn::storage {

void Partition::Impl::Count(const Entry& entry, Totals& totals, int times) {
  const auto add = [times](uint64_t& sum, uint64_t value) {
    sum += static_cast<uint64_t>(times) * value;
  };
  if (entry.may_go()) {
    add(entry.clean() ? totals.clean_bytes : totals.sole_bytes,
        entry.object->capacity());
  }
  if (!entry.visible) return;
  add(totals.objects, 1);
  add(totals.memory_objects, entry.object != nullptr ? 1 : 0);
  add(totals.disk_bytes, entry.on_disk ? entry.info.bytes : 0);
}

std::shared_ptr<ArenaBlock> Partition::Impl::MakeRoom(size_t bytes) {
  const size_t free = blocks->budget_bytes() - blocks->used_bytes();
  if (BlockSource::RoundUpToPages(bytes) >
      free + totals.clean_bytes + totals.sole_bytes) {
    return nullptr;
  }
  for (;;) {
    absl::StatusOr<std::shared_ptr<ArenaBlock>> block = blocks->Allocate(bytes);
    if (block.ok()) return *std::move(block);
    Entry* const victim = FindVictim();
    if (victim == nullptr) return nullptr;
    DropFromMemory(*victim);
  }
}

Entry* Partition::Impl::FindVictim() {
  Slot slot = kNoSlot;
  if (totals.clean_bytes > 0) {
    slot = policy.Victim([this](Slot candidate) {
      const Entry& entry = *by_slot[candidate.value()];
      return entry.may_go() && entry.clean();
    });
  } else if (totals.sole_bytes > 0) {
    // The disk refused or evicted these objects: memory has the only copies.
    slot = policy.Victim([this](Slot candidate) {
      return by_slot[candidate.value()]->may_go();
    });
  }
  return slot == kNoSlot ? nullptr : by_slot[slot.value()];
}

void Partition::Impl::PutInMemory(Entry& entry, ObjectRef object,
                                  Actions& actions) {
  KDN_CHECK(entry.object == nullptr, "an object has one memory copy");
  entry.slot = policy.Insert(
      {EvictionHashOf(entry.info.key),
       static_cast<uint32_t>(object->capacity() / BlockSource::kPageBytes)});
  if (entry.slot.value() >= by_slot.size()) {
    by_slot.resize(entry.slot.value() + 1);
  }
  by_slot[entry.slot.value()] = &entry;
  entry.copy = ++last_copy;
  Update(entry, [&](Entry& it) { it.object = std::move(object); });
  AnswerHoldWaiters(entry, absl::OkStatus(), actions);
  AskToConfirm(entry, actions);
}

void Partition::Impl::DropFromMemory(Entry& entry) {
  KDN_CHECK(entry.object != nullptr, "only a memory copy can be dropped");
  policy.Evict(entry.slot);
  LeaveMemory(entry);
  if (entry.on_disk) {
    ++counters["evictions"];
    return;
  }
  ++counters["evictions_lost"];
  const ChunkKey key = entry.info.key;
  leases.Forget(key);
  Subtract(entry);
  entries.erase(key);
}

void Partition::Impl::ForgetMemory(Entry& entry) {
  if (entry.object == nullptr) return;
  policy.Erase(entry.slot);
  LeaveMemory(entry);
}

void Partition::Impl::LeaveMemory(Entry& entry) {
  by_slot[std::exchange(entry.slot, kNoSlot).value()] = nullptr;
  CancelRetry(entry);
  entry.copy = 0;
  entry.read_since_write = false;
  Update(entry, [](Entry& it) {
    it.loans = 0;
    it.object.reset();
  });
}

action::Found Partition::Impl::Lend(Entry& entry, RequestId id, Tier tier) {
  KDN_CHECK(entry.object != nullptr, "only a memory copy is lent");
  Update(entry, [](Entry& it) { ++it.loans; });
  entry.read_since_write = true;
  WriteIfSole(entry);
  ObjectInfo info = entry.info;
  info.tier = tier;
  return {id, std::move(info), entry.object, {entry.info.key, entry.copy}};
}

Actions Partition::OnReturned(const Loan& loan, absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  const auto found = impl_->entries.find(loan.key);
  if (found != impl_->entries.end() && found->second.copy == loan.copy) {
    KDN_CHECK(found->second.loans > 0, "a loan is returned once");
    impl_->Update(found->second, [](Entry& it) { --it.loans; });
  }
  impl_->Advance(now, actions);
  return actions;
}

Actions Partition::Reserve(RequestId id, size_t bytes, absl::Time deadline,
                           absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  if (bytes == 0 || bytes > impl_->blocks->budget_bytes()) {
    actions.push_back(action::Refused{
        id, absl::InvalidArgumentError(absl::StrCat(
                "an object of ", bytes, " bytes never fits a partition of ",
                impl_->blocks->budget_bytes(), " bytes"))});
    return actions;
  }
  if (impl_->waiting() >= impl_->options.waiting_max) {
    actions.push_back(action::Refused{
        id, absl::ResourceExhaustedError(absl::StrCat(
                impl_->waiting(), " requests wait for room already"))});
    return actions;
  }
  const absl::Status added =
      impl_->reservations.Add({AdmissionId(id.value()), bytes,
                               WorkClass::kWrite, RequesterId(), deadline});
  KDN_CHECK(added.ok(), "the line is as long as requests may wait");
  impl_->Advance(now, actions);
  return actions;
}

Actions Partition::Withdraw(RequestId id, absl::Time now) {
  const CheckedEvent event(this);
  Actions actions;
  if (!impl_->reservations.Remove(AdmissionId(id.value()))) return actions;
  actions.push_back(
      action::Refused{id, absl::CancelledError("the engine gave up")});
  impl_->Advance(now, actions);
  return actions;
}

void Partition::Impl::ServeReservations(Actions& actions) {
  // In order, so that small requests do not starve a large one before them.
  while (!reservations.empty()) {
    const size_t bytes = reservations.First(WorkClass::kWrite)->amount;
    std::shared_ptr<ArenaBlock> block = MakeRoom(bytes);
    if (block == nullptr) return;
    const AdmissionRequest served = reservations.TakeFirst(WorkClass::kWrite);
    actions.push_back(
        action::Granted{RequestId(served.id.value()), std::move(block)});
  }
}

void Partition::Impl::ExpireReservations(absl::Time now, Actions& actions) {
  for (const AdmissionRequest& late : reservations.TakeExpired(now)) {
    actions.push_back(action::Refused{
        RequestId(late.id.value()),
        absl::ResourceExhaustedError(absl::StrCat(
            "no room for ", late.amount,
            " bytes in time: ", blocks->used_bytes(), " of ",
            blocks->budget_bytes(), " bytes of memory are in use"))});
  }
}

}  // namespace kdn::storage
