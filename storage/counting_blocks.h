#ifndef KDN_STORAGE_COUNTING_BLOCKS_H_
#define KDN_STORAGE_COUNTING_BLOCKS_H_

#include <cstddef>
#include <memory>

#include "storage/block_source.h"

namespace kdn::storage {

// A budget of bytes without memory, for simulations of partitions of any size.
// As in an arena, a block fits when enough pages are free. Pure; not
// thread-safe.
class CountingBlocks final : public BlockSource {
 public:
  static std::shared_ptr<CountingBlocks> Create(size_t budget_bytes);

  absl::StatusOr<std::shared_ptr<ArenaBlock>> Allocate(size_t bytes) override;
  size_t budget_bytes() const override { return budget_bytes_; }
  size_t used_bytes() const override { return used_bytes_; }
  void CheckInvariants() const override;

 private:
  explicit CountingBlocks(size_t budget_bytes) : budget_bytes_(budget_bytes) {}
  void TakeBack(std::byte* data, size_t bytes) override;

  const size_t budget_bytes_;
  size_t used_bytes_ = 0;
};

}  // namespace kdn::storage

#endif  // KDN_STORAGE_COUNTING_BLOCKS_H_
