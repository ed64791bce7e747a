#ifndef KDN_STORAGE_BLOCK_SOURCE_H_
#define KDN_STORAGE_BLOCK_SOURCE_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/check.h"

namespace kdn::storage {

class BlockSource;

// A block of memory on loan from a BlockSource: whole pages, page-aligned, so
// that O_DIRECT can use it. The destructor gives the block back to the source.
// Not copyable. A block from a source for simulations has sizes and no memory.
class ArenaBlock {
 public:
  ~ArenaBlock();
  ArenaBlock(const ArenaBlock&) = delete;
  ArenaBlock& operator=(const ArenaBlock&) = delete;

  // bytes() has the size that was asked for, padded() whole pages.
  // REQUIRES (all four): the block has memory.
  absl::Span<std::byte> bytes() { return {data(), size_}; }
  absl::Span<const std::byte> bytes() const { return {data(), size_}; }
  absl::Span<std::byte> padded() { return {data(), capacity_}; }
  absl::Span<const std::byte> padded() const { return {data(), capacity_}; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  // Cuts the block to the bytes that were written. The pages behind them go
  // back to the source. REQUIRES: 0 < size <= this->size().
  void ShrinkTo(size_t size);

 private:
  friend class BlockSource;
  ArenaBlock(std::shared_ptr<BlockSource> source, std::byte* data, size_t size,
             size_t capacity);
  std::byte* data() const {
    KDN_DCHECK(data_ != nullptr, "the block has no memory");
    return data_;
  }

  std::shared_ptr<BlockSource> source_;
  std::byte* data_;  // null: the source has no memory
  size_t size_;
  size_t capacity_;
};

// A whole encoded object in memory. Readers share it. The block goes back to
// its source when the last reader lets go, so an eviction takes no bytes away
// from a reader.
using ObjectRef = std::shared_ptr<const ArenaBlock>;

// The source of a partition's memory: an arena in a node, a plain count of
// bytes in a simulator. Invariant: used_bytes() is the capacity of all blocks
// on loan, and at most budget_bytes().
class BlockSource : public std::enable_shared_from_this<BlockSource> {
 public:
  static constexpr size_t kPageBytes = 4096;
  static constexpr size_t RoundUpToPages(size_t bytes) {
    return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  }

  virtual ~BlockSource() = default;

  // RESOURCE_EXHAUSTED when there is no room now: evict and try again.
  // INVALID_ARGUMENT when `bytes` is 0 or more than the budget.
  virtual absl::StatusOr<std::shared_ptr<ArenaBlock>> Allocate(
      size_t bytes) = 0;
  virtual size_t budget_bytes() const = 0;
  virtual size_t used_bytes() const = 0;
  virtual void CheckInvariants() const = 0;

 protected:
  // Makes a block of this source. `data` is null if the source has no memory.
  std::shared_ptr<ArenaBlock> Lend(std::byte* data, size_t size);

 private:
  friend class ArenaBlock;
  // The bytes at `data`, whole pages, are not on loan any more.
  virtual void TakeBack(std::byte* data, size_t bytes) = 0;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_BLOCK_SOURCE_H_
