#include "storage/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::storage {
namespace {

// The address space, in budgets. A limit on address space (`ulimit -v`) may
// allow less.
constexpr size_t kSpaceMax = 8;

}  // namespace

void Arena::Runs::Insert(size_t offset, size_t length) {
  by_offset_.emplace(offset, length);
  by_length_.emplace(length, offset);
  bytes_ += length;
}

void Arena::Runs::Erase(std::map<size_t, size_t>::iterator run) {
  by_length_.erase({run->second, run->first});
  bytes_ -= run->second;
  by_offset_.erase(run);
}

void Arena::Runs::Add(size_t offset, size_t length) {
  auto next = by_offset_.lower_bound(offset);
  KDN_CHECK(next == by_offset_.end() || offset + length <= next->first,
            "a run is added once");
  if (next != by_offset_.end() && offset + length == next->first) {
    length += next->second;
    const auto touching = next++;
    Erase(touching);
  }
  if (next != by_offset_.begin()) {
    const auto before = std::prev(next);
    KDN_CHECK(before->first + before->second <= offset, "a run is added once");
    if (before->first + before->second == offset) {
      offset = before->first;
      length += before->second;
      Erase(before);
    }
  }
  Insert(offset, length);
}

size_t Arena::Runs::Take(size_t offset, size_t length) {
  const size_t end = offset + length;
  auto run = by_offset_.upper_bound(offset);
  if (run != by_offset_.begin()) --run;
  size_t taken = 0;
  while (run != by_offset_.end() && run->first < end) {
    const auto [begins, run_length] = *run;
    const size_t ends = begins + run_length;
    const auto overlapping = run++;
    if (ends <= offset) continue;
    Erase(overlapping);
    if (begins < offset) Insert(begins, offset - begins);
    if (ends > end) Insert(end, ends - end);
    taken += std::min(ends, end) - std::max(begins, offset);
  }
  return taken;
}

std::optional<size_t> Arena::Runs::Shortest(size_t length) const {
  const auto best = by_length_.lower_bound({length, 0});
  if (best == by_length_.end()) return std::nullopt;
  return best->second;
}

void Arena::Runs::CheckInvariants() const {
  size_t bytes = 0;
  size_t end_of_last = 0;
  for (const auto& [offset, length] : by_offset_) {
    KDN_CHECK(bytes == 0 || offset > end_of_last, "two runs touch");
    KDN_CHECK(length > 0 && by_length_.contains({length, offset}),
              "the two lists of runs differ");
    end_of_last = offset + length;
    bytes += length;
  }
  KDN_CHECK(by_length_.size() == by_offset_.size() && bytes == bytes_,
            "the runs are miscounted");
}

absl::StatusOr<std::shared_ptr<Arena>> Arena::Create(size_t budget_bytes) {
  if (budget_bytes < kPageBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an arena of ", budget_bytes, " bytes has no room for a page of ",
        kPageBytes, ": set a larger budget"));
  }
  const size_t budget = budget_bytes / kPageBytes * kPageBytes;
  absl::Status refused;
  for (size_t space = kSpaceMax; space > 0; space /= 2) {
    if (budget > SIZE_MAX / space) continue;
    absl::StatusOr<PrivateMemory> memory =
        PrivateMemory::Create(space * budget);
    if (memory.ok()) {
      return std::shared_ptr<Arena>(new Arena(*std::move(memory), budget));
    }
    refused = memory.status();
  }
  return refused;
}

Arena::Arena(PrivateMemory memory, size_t budget)
    : memory_(std::move(memory)), budget_(budget) {
  absl::MutexLock lock(&mutex_);
  base_free_.Add(0, budget_);
  const size_t spare = memory_.size() - budget_;
  if (spare == 0) return;
  spare_free_.Add(budget_, spare);
  // A block of a huge page's size or less would take a whole huge page.
  madvise(memory_.data() + budget_, spare, MADV_NOHUGEPAGE);
}

absl::StatusOr<std::shared_ptr<ArenaBlock>> Arena::Allocate(size_t bytes) {
  if (bytes == 0 || bytes > budget_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a block of ", bytes, " bytes never fits an arena of ",
                     budget_, " bytes"));
  }
  const size_t length = RoundUpToPages(bytes);
  absl::MutexLock lock(&mutex_);
  std::optional<size_t> offset;
  if (length <= budget_ - Used()) {
    offset = base_free_.Shortest(length);
    if (!offset) offset = spare_free_.Shortest(length);
  }
  if (!offset) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no room for ", bytes, " bytes: ", budget_ - Used(),
                     " of ", budget_, " bytes are free"));
  }
  Runs& part = *offset < budget_ ? base_free_ : spare_free_;
  KDN_CHECK(part.Take(*offset, length) == length, "a free run is free");
  cold_.Take(*offset, length);
  Chill();
  return Lend(memory_.data() + *offset, bytes);
}

void Arena::Chill() {
  // From the end: blocks lie at the beginning of a free run.
  const auto& runs = base_free_.by_offset();
  for (auto run = runs.rbegin(); cold_.bytes() < SpareUsed(); ++run) {
    KDN_CHECK(run != runs.rend(), "the base has as many free pages");
    const bool is_cold = cold_.Take(run->first, run->second) == run->second;
    const size_t length = std::min(run->second, SpareUsed() - cold_.bytes());
    const size_t offset = run->first + run->second - length;
    if (!is_cold) Release(offset, length);
    cold_.Add(offset, length);
  }
}

void Arena::Release(size_t offset, size_t length) const {
  // This fails only for memory that is locked, and such memory stays resident.
  (void)madvise(memory_.data() + offset, length, MADV_DONTNEED);
}

void Arena::TakeBack(std::byte* data, size_t bytes) {
  const size_t offset = static_cast<size_t>(data - memory_.data());
  if (offset >= budget_) Release(offset, bytes);
  absl::MutexLock lock(&mutex_);
  KDN_CHECK(Used() >= bytes, "more was freed than used");
  Runs& part = offset < budget_ ? base_free_ : spare_free_;
  part.Add(offset, bytes);
}

size_t Arena::used_bytes() const {
  absl::MutexLock lock(&mutex_);
  return Used();
}

size_t Arena::spare_used_bytes() const {
  absl::MutexLock lock(&mutex_);
  return SpareUsed();
}

size_t Arena::resident_bytes() const {
  std::vector<unsigned char> pages(memory_.size() / kPageBytes);
  KDN_CHECK(mincore(memory_.data(), memory_.size(), pages.data()) == 0,
            "the memory is mapped");
  return kPageBytes * static_cast<size_t>(std::count_if(
                          pages.begin(), pages.end(),
                          [](unsigned char page) { return (page & 1) != 0; }));
}

void Arena::CheckInvariants() const {
  absl::MutexLock lock(&mutex_);
  for (const Runs* runs : {&base_free_, &spare_free_, &cold_}) {
    runs->CheckInvariants();
  }
  for (const auto& [offset, length] : base_free_.by_offset()) {
    KDN_CHECK(offset + length <= budget_, "a free run leaves the base");
  }
  for (const auto& [offset, length] : spare_free_.by_offset()) {
    KDN_CHECK(offset >= budget_ && offset + length <= memory_.size(),
              "a free run leaves the spare");
  }
  for (const auto& [offset, length] : cold_.by_offset()) {
    const auto after = base_free_.by_offset().upper_bound(offset);
    KDN_CHECK(after != base_free_.by_offset().begin(), "a cold page is used");
    const auto& [free_at, free_length] = *std::prev(after);
    KDN_CHECK(offset + length <= free_at + free_length, "a cold page is used");
  }
  KDN_CHECK(Used() <= budget_ && cold_.bytes() >= SpareUsed(),
            "the process holds more pages than the budget");
}

}  // namespace kdn::storage
