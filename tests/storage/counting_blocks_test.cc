#include "storage/counting_blocks.h"

#include <gtest/gtest.h>

#include <utility>
#include <variant>

#include "storage/partition.h"

namespace kdn::storage {
namespace {

constexpr size_t kPage = BlockSource::kPageBytes;

TEST(CountingBlocksTest, CountsWholePagesUntilTheBudgetIsUsed) {
  const auto source = CountingBlocks::Create(3 * kPage + 5);
  EXPECT_EQ(source->budget_bytes(), 3 * kPage);
  auto block = source->Allocate(kPage + 1);
  ASSERT_TRUE(block.ok());
  EXPECT_EQ((*block)->size(), kPage + 1);
  EXPECT_EQ((*block)->capacity(), 2 * kPage);
  EXPECT_EQ(source->used_bytes(), 2 * kPage);
  EXPECT_TRUE(absl::IsResourceExhausted(source->Allocate(2 * kPage).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(source->Allocate(0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(source->Allocate(4 * kPage).status()));
  (*block)->ShrinkTo(7);
  EXPECT_EQ(source->used_bytes(), kPage);
  block->reset();
  EXPECT_EQ(source->used_bytes(), 0u);
  source->CheckInvariants();
}

// A partition in a simulator: a terabyte of objects without memory.
TEST(CountingBlocksTest, APartitionRunsOnMemoryThatIsOnlyCounted) {
  constexpr size_t kObject = size_t{1} << 30;
  constexpr uint64_t kFit = 1024;
  Partition::Options options;
  options.has_disk = false;
  Partition partition(options, CountingBlocks::Create(kFit * kObject));
  const absl::Time now = absl::UnixEpoch();
  uint64_t id = 0;
  const auto key_of = [](uint64_t i) {
    return ChunkKey(DigestBuilder("counted").Add(i).Finish());
  };
  for (uint64_t i = 0; i < 2 * kFit; ++i) {
    Actions reserved = partition.Reserve(RequestId(++id), kObject,
                                         absl::InfiniteFuture(), now);
    ASSERT_EQ(reserved.size(), 1u);
    ObjectInfo info;
    info.key = key_of(i);
    info.bytes = kObject;
    partition.Commit(RequestId(++id), info,
                     std::move(std::get<action::Granted>(reserved[0]).block),
                     Durability::kReplicated, absl::InfinitePast(),
                     absl::InfiniteFuture(), now);
  }
  EXPECT_EQ(partition.counters()["objects"], kFit);
  EXPECT_EQ(partition.counters()["evictions_lost"], kFit);
  EXPECT_EQ(partition.counters()["memory_bytes"], kFit * kObject);
  EXPECT_EQ(partition.Lookup(key_of(kFit - 1), ""), nullptr);
  EXPECT_NE(partition.Lookup(key_of(kFit), ""), nullptr);
  partition.CheckInvariants();
}

}  // namespace
}  // namespace kdn::storage
