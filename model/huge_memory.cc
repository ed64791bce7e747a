#include "model/huge_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "kv/line_vector.h"

namespace kdn::model {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Smaller allocations share a block of this size. The end of a block that is
// not used has no pages.
constexpr size_t kBlockBytes = size_t{64} << 20;
// A first allocation below this has no neighbours that would fill a huge page.
constexpr size_t kSmallBytes = size_t{1} << 20;

size_t RoundedUp(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

void HugeMemory::Free::operator()(std::byte* block) const {
  ::operator delete(block, std::align_val_t(alignment));
}

std::byte* HugeMemory::Allocate(size_t bytes) {
  bytes = RoundedUp(bytes, kCacheLine);
  if (blocks_.empty() || used_ + bytes > size_) {
    const bool small = blocks_.empty() && bytes < kSmallBytes;
    size_ = small ? bytes : RoundedUp(std::max(bytes, kBlockBytes), kHugePage);
    used_ = 0;
    const auto alignment = small ? kCacheLine : kHugePage;
    blocks_.emplace_back(static_cast<std::byte*>(::operator new(
                             size_, std::align_val_t(alignment))),
                         Free{alignment});
    // Without huge pages the memory is read more slowly.
    if (!small) {
      static_cast<void>(madvise(blocks_.back().get(), size_, MADV_HUGEPAGE));
    }
  }
  used_ += bytes;
  return blocks_.back().get() + used_ - bytes;
}

}  // namespace kdn::model
