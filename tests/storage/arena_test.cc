#include "storage/arena.h"

#include <gtest/gtest.h>

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
        auto block = arena->Allocate(random() % (8 * kPage) + 1);
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
