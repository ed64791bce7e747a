#include "storage/arena.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::storage {

absl::StatusOr<std::shared_ptr<Arena>> Arena::Create(size_t budget_bytes) {
  if (budget_bytes < kPageBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an arena of ", budget_bytes, " bytes has no room for a page of ",
        kPageBytes, ": set a larger budget"));
  }
  absl::StatusOr<PrivateMemory> memory =
      PrivateMemory::Create(budget_bytes / kPageBytes * kPageBytes);
  if (!memory.ok()) return memory.status();
  return std::shared_ptr<Arena>(new Arena(*std::move(memory)));
}

Arena::Arena(PrivateMemory memory) : memory_(std::move(memory)) {
  absl::MutexLock lock(&mutex_);
  free_by_offset_.emplace(0, memory_.size());
  free_by_length_.emplace(memory_.size(), 0);
}

absl::StatusOr<std::shared_ptr<ArenaBlock>> Arena::Allocate(size_t bytes) {
  if (bytes == 0 || bytes > memory_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a block of ", bytes, " bytes never fits an arena of ",
                     memory_.size(), " bytes"));
  }
  const size_t length = RoundUpToPages(bytes);
  absl::MutexLock lock(&mutex_);
  const auto best = free_by_length_.lower_bound({length, 0});
  if (best == free_by_length_.end()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no free run of ", bytes, " bytes: ", memory_.size() - used_bytes_,
        " of ", memory_.size(), " bytes are free, in pieces"));
  }
  const auto [run, offset] = *best;
  free_by_length_.erase(best);
  free_by_offset_.erase(offset);
  if (run > length) {
    free_by_length_.emplace(run - length, offset + length);
    free_by_offset_.emplace(offset + length, run - length);
  }
  used_bytes_ += length;
  return Lend(memory_.data() + offset, bytes);
}

void Arena::TakeBack(std::byte* data, size_t bytes) {
  size_t offset = static_cast<size_t>(data - memory_.data());
  size_t length = bytes;
  absl::MutexLock lock(&mutex_);
  KDN_CHECK(used_bytes_ >= bytes, "more was freed than used");
  used_bytes_ -= bytes;
  auto next = free_by_offset_.lower_bound(offset);
  KDN_CHECK(next == free_by_offset_.end() || offset + length <= next->first,
            "a block was freed twice");
  if (next != free_by_offset_.end() && offset + length == next->first) {
    length += next->second;
    free_by_length_.erase({next->second, next->first});
    next = free_by_offset_.erase(next);
  }
  if (next != free_by_offset_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      length += before->second;
      free_by_length_.erase({before->second, before->first});
      free_by_offset_.erase(before);
    }
  }
  free_by_offset_.emplace(offset, length);
  free_by_length_.emplace(length, offset);
}

size_t Arena::used_bytes() const {
  absl::MutexLock lock(&mutex_);
  return used_bytes_;
}

void Arena::CheckInvariants() const {
  absl::MutexLock lock(&mutex_);
  size_t free = 0;
  size_t end_of_last = 0;
  bool first = true;
  for (const auto& [offset, length] : free_by_offset_) {
    KDN_CHECK(first || offset > end_of_last, "two free runs touch");
    KDN_CHECK(free_by_length_.contains({length, offset}),
              "the two free lists differ");
    first = false;
    end_of_last = offset + length;
    free += length;
  }
  KDN_CHECK(free_by_length_.size() == free_by_offset_.size(),
            "the two free lists differ in size");
  KDN_CHECK(end_of_last <= memory_.size(), "a free run ends outside the arena");
  KDN_CHECK(free + used_bytes_ == memory_.size(),
            "free and used bytes do not add up to the budget");
}

}  // namespace kdn::storage
