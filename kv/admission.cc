#include "kv/admission.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn {
namespace {

uint64_t Above(uint64_t amount, uint64_t limit) {
  return amount > limit ? amount - limit : 0;
}

}  // namespace

Admission::Admission(const Options& options)
    : options_(options), common_(options.budget), line_(options.waiting_max) {
  for (const WorkClass work_class : kWorkClasses) {
    KDN_CHECK(guaranteed(work_class) <= common_,
              "the guaranteed parts exceed the budget");
    common_ -= guaranteed(work_class);
  }
}

absl::Status Admission::Request(const AdmissionRequest& request) {
  KDN_CHECK(!grants_.contains(request.id), "an id is used once");
  if (request.amount > most_of(request.work_class)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a request for ", request.amount, ", but its class may hold at most ",
        most_of(request.work_class)));
  }
  return line_.Add(request);
}

std::optional<AdmissionRequest> Admission::TakeGrant() {
  Refresh();
  for (const WorkClass work_class : kWorkClasses) {
    const AdmissionRequest* first = line_.First(work_class);
    if (first != nullptr && CommonPartOf(work_class, first->amount) == 0) {
      return GrantFirst(work_class);
    }
  }
  const std::optional<WorkClass> next = FirstInCommon();
  if (!next || !HasRoomFor(*next, line_.First(*next)->amount)) {
    return std::nullopt;
  }
  const uint64_t taken = CommonPartOf(*next, line_.First(*next)->amount);
  for (const WorkClass other : kWorkClasses) {
    if (other != *next) waits_[other].passed += taken;
  }
  return GrantFirst(*next);
}

bool Admission::TryTake(const AdmissionRequest& request) {
  KDN_CHECK(!grants_.contains(request.id), "an id is used once");
  const WorkClass work_class = request.work_class;
  if (line_.First(work_class) != nullptr) return false;
  if (CommonPartOf(work_class, request.amount) > 0 &&
      (FirstInCommon() || !HasRoomFor(work_class, request.amount))) {
    return false;
  }
  Hold(request);
  return true;
}

void Admission::GiveBack(AdmissionId id) {
  const auto found = grants_.find(id);
  KDN_CHECK(found != grants_.end(), "no such grant");
  const auto [amount, work_class] = found->second;
  grants_.erase(found);
  const uint64_t before = Above(used_[work_class], guaranteed(work_class));
  used_[work_class] -= amount;
  common_used_ -= before - Above(used_[work_class], guaranteed(work_class));
}

bool Admission::Withdraw(AdmissionId id) { return line_.Remove(id); }

std::vector<AdmissionRequest> Admission::TakeExpired(absl::Time now) {
  return line_.TakeExpired(now);
}

uint64_t Admission::used() const {
  return used_.read + used_.write + used_.background;
}

uint64_t Admission::most_of(WorkClass work_class) const {
  return guaranteed(work_class) + common_;
}

uint64_t Admission::CommonPartOf(WorkClass work_class, uint64_t amount) const {
  return Above(amount, Above(guaranteed(work_class), used_[work_class]));
}

bool Admission::HasRoomFor(WorkClass work_class, uint64_t amount) const {
  return CommonPartOf(work_class, amount) <= common_ - common_used_;
}

void Admission::Refresh() {
  for (const WorkClass work_class : kWorkClasses) {
    const AdmissionRequest* first = line_.First(work_class);
    Wait& wait = waits_[work_class];
    if (first == nullptr || wait.first != first->id) wait = Wait{};
    if (first == nullptr) continue;
    wait.first = first->id;
    if (wait.due_since == 0 &&
        wait.passed >= options_.shares[work_class].patience) {
      wait.due_since = ++due_count_;
    }
  }
}

std::optional<WorkClass> Admission::FirstInCommon() const {
  std::optional<WorkClass> first;
  for (const WorkClass work_class : kWorkClasses) {
    if (line_.First(work_class) == nullptr) continue;
    if (!first) {
      first = work_class;
      continue;
    }
    const uint64_t due = waits_[work_class].due_since;
    const uint64_t due_first = waits_[*first].due_since;
    if (due != 0 && (due_first == 0 || due < due_first)) first = work_class;
  }
  return first;
}

AdmissionRequest Admission::GrantFirst(WorkClass work_class) {
  const AdmissionRequest request = line_.TakeFirst(work_class);
  waits_[work_class] = Wait{};
  Hold(request);
  return request;
}

void Admission::Hold(const AdmissionRequest& request) {
  const WorkClass work_class = request.work_class;
  common_used_ += CommonPartOf(work_class, request.amount);
  used_[work_class] += request.amount;
  grants_.emplace(request.id, Grant{request.amount, work_class});
}

void Admission::CheckInvariants() const {
  line_.CheckInvariants();
  PerClass<uint64_t> held;
  for (const auto& [id, grant] : grants_)
    held[grant.work_class] += grant.amount;
  uint64_t common = 0;
  for (const WorkClass work_class : kWorkClasses) {
    KDN_CHECK(held[work_class] == used_[work_class],
              "the used amount is the sum of the grants");
    KDN_CHECK(used_[work_class] <= most_of(work_class),
              "a class holds the guaranteed part of another class");
    common += Above(used_[work_class], guaranteed(work_class));
  }
  KDN_CHECK(common == common_used_ && common <= common_,
            "the common part is overdrawn");
  KDN_CHECK(used() <= budget(), "the budget is overdrawn");
}

}  // namespace kdn
