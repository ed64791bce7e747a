#include "model/weight_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "kv/line_vector.h"

namespace kdn::model {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// A small model has one block; the end of a block that is not used has no
// pages.
constexpr size_t kBlockBytes = size_t{64} << 20;

size_t RoundedUp(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

void WeightMemory::Free::operator()(std::byte* block) const {
  ::operator delete(block, std::align_val_t(kHugePage));
}

std::byte* WeightMemory::Allocate(size_t bytes) {
  bytes = RoundedUp(bytes, kCacheLine);
  if (used_ + bytes > size_) {
    size_ = RoundedUp(std::max(bytes, kBlockBytes), kHugePage);
    used_ = 0;
    auto* const block = static_cast<std::byte*>(
        ::operator new(size_, std::align_val_t(kHugePage)));
    blocks_.emplace_back(block);
    // Without huge pages the weights are read more slowly.
    static_cast<void>(madvise(block, size_, MADV_HUGEPAGE));
  }
  used_ += bytes;
  return blocks_.back().get() + used_ - bytes;
}

}  // namespace kdn::model
