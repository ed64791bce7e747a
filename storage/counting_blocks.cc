#include "storage/counting_blocks.h"

#include "absl/strings/str_cat.h"

namespace kdn::storage {

std::shared_ptr<CountingBlocks> CountingBlocks::Create(size_t budget_bytes) {
  return std::shared_ptr<CountingBlocks>(
      new CountingBlocks(budget_bytes / kPageBytes * kPageBytes));
}

absl::StatusOr<std::shared_ptr<ArenaBlock>> CountingBlocks::Allocate(
    size_t bytes) {
  if (bytes == 0 || bytes > budget_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a block of ", bytes, " bytes never fits a budget of ",
                     budget_bytes_, " bytes"));
  }
  const size_t capacity = RoundUpToPages(bytes);
  if (capacity > budget_bytes_ - used_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no room for ", bytes, " bytes: ", budget_bytes_ - used_bytes_,
        " bytes are free"));
  }
  used_bytes_ += capacity;
  return Lend(nullptr, bytes);
}

void CountingBlocks::TakeBack(std::byte* /*data*/, size_t bytes) {
  KDN_CHECK(used_bytes_ >= bytes, "more was given back than lent");
  used_bytes_ -= bytes;
}

void CountingBlocks::CheckInvariants() const {
  KDN_CHECK(used_bytes_ <= budget_bytes_, "more is lent than there is");
  KDN_CHECK(used_bytes_ % kPageBytes == 0, "blocks are whole pages");
}

}  // namespace kdn::storage
