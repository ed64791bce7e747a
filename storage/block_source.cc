#include "storage/block_source.h"

#include <utility>

namespace kdn::storage {

ArenaBlock::ArenaBlock(std::shared_ptr<BlockSource> source, std::byte* data,
                       size_t size, size_t capacity)
    : source_(std::move(source)),
      data_(data),
      size_(size),
      capacity_(capacity) {}

ArenaBlock::~ArenaBlock() { source_->TakeBack(data_, capacity_); }

void ArenaBlock::ShrinkTo(size_t size) {
  KDN_CHECK(size > 0 && size <= size_, "a block only shrinks");
  const size_t capacity = BlockSource::RoundUpToPages(size);
  if (capacity < capacity_) {
    source_->TakeBack(data_ == nullptr ? nullptr : data_ + capacity,
                      capacity_ - capacity);
  }
  size_ = size;
  capacity_ = capacity;
}

std::shared_ptr<ArenaBlock> BlockSource::Lend(std::byte* data, size_t size) {
  return std::shared_ptr<ArenaBlock>(
      new ArenaBlock(shared_from_this(), data, size, RoundUpToPages(size)));
}

}  // namespace kdn::storage
