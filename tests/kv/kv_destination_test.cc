#include "kv/kv_destination.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace kdn {
namespace {

const KvShape kShape{2, 2, 20, 4, Dtype::kBf16};

// Pages of [layer][K|V][blocks][block_tokens][heads][dim] in `memory`.
KvPages PagesIn(std::vector<std::byte>* memory) {
  KvPages pages;
  pages.head_stride = 8;
  pages.token_stride = 16;
  pages.block_tokens = 8;
  pages.block_stride = 8 * 16;
  pages.blocks = 5;
  pages.block_table = {2, 0, 4, 1};
  pages.first_token = 6;
  const int64_t part = 5 * pages.block_stride;
  memory->resize(4 * part);
  pages.keys = {memory->data(), memory->data() + 2 * part};
  pages.values = {memory->data() + part, memory->data() + 3 * part};
  return pages;
}

TEST(KvDestination, FollowsTheBlockTable) {
  std::vector<std::byte> memory;
  const KvPages pages = PagesIn(&memory);
  const auto to = KvDestination::InPages(kShape, pages);
  ASSERT_TRUE(to.ok()) << to.status();
  EXPECT_EQ(to->shape(), kShape);
  const MutableRows rows = to->Rows(1, KvPart::kV, 1);
  const std::byte* base = pages.values[1] + 8;
  EXPECT_EQ(rows.At(0), base + 2 * 128 + 6 * 16);
  EXPECT_EQ(rows.At(1), base + 2 * 128 + 7 * 16);
  EXPECT_EQ(rows.At(2), base);
  EXPECT_EQ(rows.At(10), base + 4 * 128);
  EXPECT_EQ(rows.At(19), base + 1 * 128 + 1 * 16);
  EXPECT_EQ(to->Layer(1).Rows(0, KvPart::kV, 1).At(10), rows.At(10));
  EXPECT_EQ(to->Layer(1).shape().layers, 1);
  EXPECT_EQ(to->Rows(0, KvPart::kK, 0).At(2), pages.keys[0]);
}

TEST(KvDestination, OfAViewIsTheView) {
  std::vector<std::byte> memory(kShape.bytes());
  const MutableKvView view(memory.data(), kShape, KvStrides::HeadMajor(kShape));
  const KvDestination to = view;
  EXPECT_EQ(to.shape(), kShape);
  EXPECT_EQ(to.Rows(1, KvPart::kK, 1).At(7), view.At(1, KvPart::kK, 1, 7));
  EXPECT_EQ(to.Layer(1).Rows(0, KvPart::kV, 0).At(3),
            view.At(1, KvPart::kV, 0, 3));
}

TEST(KvDestination, PagesThatDoNotFitAreRefused) {
  constexpr int64_t kFar = std::numeric_limits<int64_t>::max();
  constexpr int kMany = std::numeric_limits<int>::max();
  std::vector<std::byte> memory;
  const KvPages good = PagesIn(&memory);
  std::vector<KvPages> bad(15, good);
  bad[0].block_table = {2, 0, 4};  // 26 tokens
  bad[1].block_table = {};
  bad[2].block_table[3] = 5;
  bad[3].block_table[0] = -1;
  bad[4].first_token = -1;
  bad[5].first_token = 13;
  bad[6].first_token = kMany;
  bad[7].block_tokens = 0;
  bad[8].blocks = 0;
  bad[9].keys.pop_back();
  bad[10].values.push_back(memory.data());
  bad[11].token_stride = -16;
  bad[12].block_stride = kFar;
  bad[13].block_tokens = kMany;
  bad[13].token_stride = kFar / 4;
  bad[14].values[1] = nullptr;
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        KvDestination::InPages(kShape, bad[i]).status()))
        << i;
  }
  KvPages none = good;
  none.keys = none.values = {};
  none.first_token = 0;
  KvShape empty = kShape;
  empty.layers = 0;
  EXPECT_FALSE(KvDestination::InPages(empty, none).ok());
  empty = kShape;
  for (const int tokens : {0, -3}) {
    empty.tokens = tokens;
    EXPECT_FALSE(KvDestination::InPages(empty, good).ok());
  }
  // Entries of the block table that no token needs are not checked.
  KvPages behind = good;
  behind.block_table.push_back(-1);
  EXPECT_TRUE(KvDestination::InPages(kShape, behind).ok());
  behind.first_token = 8;
  behind.block_table[0] = 99;
  EXPECT_TRUE(KvDestination::InPages(kShape, behind).ok());
}

}  // namespace
}  // namespace kdn
