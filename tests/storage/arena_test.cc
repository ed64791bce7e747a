#include "storage/arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace kdn::storage {
namespace {

constexpr size_t kPage = Arena::kPageBytes;

std::shared_ptr<Arena> MakeArena(size_t pages) {
  absl::StatusOr<std::shared_ptr<Arena>> arena = Arena::Create(pages * kPage);
  EXPECT_TRUE(arena.ok()) << arena.status();
  return *arena;
}

TEST(ArenaTest, BlocksArePageAlignedAndKeepTheirSize) {
  const auto arena = MakeArena(4);
  auto block = *arena->Allocate(kPage + 1);
  EXPECT_EQ(block->size(), kPage + 1);
  EXPECT_EQ(block->capacity(), 2 * kPage);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(block->bytes().data()) % kPage, 0u);
  EXPECT_EQ(arena->used_bytes(), 2 * kPage);
}

TEST(ArenaTest, RefusesWhenFullAndServesAgainWhenFreed) {
  const auto arena = MakeArena(2);
  auto block = *arena->Allocate(2 * kPage);
  EXPECT_TRUE(absl::IsResourceExhausted(arena->Allocate(1).status()));
  block.reset();
  EXPECT_EQ(arena->used_bytes(), 0u);
  EXPECT_TRUE(arena->Allocate(2 * kPage).ok());
}

TEST(ArenaTest, RefusesSizesThatCanNeverFit) {
  const auto arena = MakeArena(2);
  EXPECT_TRUE(absl::IsInvalidArgument(arena->Allocate(0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(arena->Allocate(3 * kPage).status()));
}

TEST(ArenaTest, AnyBlockFitsIntoEnoughFreePagesWhereverTheyLie) {
  const auto arena = MakeArena(64);
  std::vector<std::shared_ptr<ArenaBlock>> blocks;
  for (int i = 0; i < 64; ++i) blocks.push_back(*arena->Allocate(kPage));
  // Every second page stays in use, so that no two free pages touch.
  for (size_t i = 0; i < blocks.size(); i += 2) blocks[i] = nullptr;
  auto large = arena->Allocate(32 * kPage);
  ASSERT_TRUE(large.ok()) << large.status();
  std::memset((*large)->bytes().data(), 7, (*large)->size());
  arena->CheckInvariants();
  EXPECT_EQ(arena->used_bytes(), 64 * kPage);
  EXPECT_EQ(arena->spare_used_bytes(), 32 * kPage);
  EXPECT_TRUE(absl::IsResourceExhausted(arena->Allocate(1).status()));
  large->reset();
  EXPECT_EQ(arena->spare_used_bytes(), 0u);
  EXPECT_TRUE(arena->Allocate(kPage).ok());
}

TEST(ArenaTest, ABlockLiesInTheBaseWhereThereIsARunForIt) {
  const auto arena = MakeArena(8);
  auto all = *arena->Allocate(8 * kPage);
  EXPECT_EQ(arena->spare_used_bytes(), 0u);
  all.reset();
  auto first = *arena->Allocate(3 * kPage);
  auto second = *arena->Allocate(5 * kPage);
  EXPECT_EQ(arena->spare_used_bytes(), 0u);
  first.reset();
  first = *arena->Allocate(2 * kPage);
  EXPECT_EQ(arena->spare_used_bytes(), 0u);
}

// The pages that the process holds, by the kernel's count.
TEST(ArenaTest, FragmentsTakeNoMorePagesThanTheBudget) {
  constexpr size_t kPages = 4096;
  const auto arena = MakeArena(kPages);
  std::mt19937 random(1);
  std::vector<std::shared_ptr<ArenaBlock>> blocks;
  size_t spare_most = 0;
  for (int step = 0; step < 3000; ++step) {
    auto block = arena->Allocate((random() % 512 + 1) * kPage);
    if (block.ok()) {
      std::memset((*block)->padded().data(), 1, (*block)->capacity());
      blocks.push_back(*std::move(block));
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      blocks.pop_back();
    }
    spare_most = std::max(spare_most, arena->spare_used_bytes());
  }
  EXPECT_GT(spare_most, 0u) << "the test needs fragments";
  EXPECT_LE(arena->resident_bytes(), kPages * kPage);
}

TEST(ArenaTest, ShrinkingGivesTheTailBack) {
  const auto arena = MakeArena(4);
  auto block = *arena->Allocate(4 * kPage);
  block->ShrinkTo(10);
  EXPECT_EQ(block->size(), 10u);
  EXPECT_EQ(arena->used_bytes(), kPage);
  EXPECT_TRUE(arena->Allocate(3 * kPage).ok());
}

TEST(ArenaTest, ABlockOutlivesTheLastHandleOfItsArena) {
  auto arena = MakeArena(1);
  auto block = *arena->Allocate(5);
  arena.reset();
  std::memset(block->bytes().data(), 1, 5);
  EXPECT_EQ(block->bytes()[4], std::byte{1});
}

TEST(ArenaTest, NeverOverlapsAndNeverLosesPagesUnderRandomUse) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto arena = MakeArena(64);
    struct Held {
      std::shared_ptr<ArenaBlock> block;
      uint8_t fill;
    };
    std::vector<Held> held;
    for (int step = 0; step < 2000; ++step) {
      if (random() % 2 == 0) {
        const size_t bytes = random() % (24 * kPage) + 1;
        const bool fits =
            arena->used_bytes() + Arena::RoundUpToPages(bytes) <= 64 * kPage;
        auto block = arena->Allocate(bytes);
        EXPECT_EQ(block.ok(), fits) << block.status();
        if (block.ok()) {
          const auto fill = static_cast<uint8_t>(random());
          std::memset((*block)->bytes().data(), fill, (*block)->size());
          held.push_back({*std::move(block), fill});
        }
      } else if (!held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        const Held& last = held.back();
        EXPECT_EQ(last.block->bytes().front(), std::byte{last.fill});
        EXPECT_EQ(last.block->bytes().back(), std::byte{last.fill});
        if (random() % 4 == 0) {
          last.block->ShrinkTo(random() % last.block->size() + 1);
        } else {
          held.pop_back();
        }
      }
      arena->CheckInvariants();
    }
    held.clear();
    EXPECT_EQ(arena->used_bytes(), 0u);
    EXPECT_TRUE(arena->Allocate(64 * kPage).ok()) << "free runs merge";
  }
}

}  // namespace
}  // namespace kdn::storage
