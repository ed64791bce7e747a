#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "kv/kv_destination.h"
#include "kv/kv_pages.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

// Layouts of pages in engines.
enum class PageLayout {
  kApart,       // [2][blocks][block_tokens][heads][dim]
  kInBlock,     // [blocks][2][block_tokens][heads][dim]
  kSideBySide,  // [blocks][heads][block_tokens][2 * dim]
  kPadded,      // [blocks][2][block_tokens][heads][dim], nothing aligned
};

// The paged cache of an engine, and where a sequence lies in it.
class PagedCache {
 public:
  PagedCache(const KvShape& shape, PageLayout layout, int block_tokens,
             int first_token, std::mt19937* rng) {
    const auto row = static_cast<int64_t>(shape.head_bytes());
    const int64_t pad = layout == PageLayout::kPadded ? 3 : 0;
    const int used =
        (first_token + shape.tokens + block_tokens - 1) / block_tokens;
    pages_.block_tokens = block_tokens;
    pages_.blocks = used + 3;
    pages_.first_token = first_token;
    pages_.head_stride = row + pad;
    pages_.token_stride = pages_.head_stride * shape.kv_heads + pad;
    int64_t values_at = pages_.token_stride * block_tokens + pad;
    pages_.block_stride = 2 * values_at + pad;
    int64_t layer = pages_.block_stride * pages_.blocks;
    if (layout == PageLayout::kApart) {
      pages_.block_stride = values_at;
      values_at *= pages_.blocks;
    } else if (layout == PageLayout::kSideBySide) {
      pages_.token_stride = 2 * row;
      pages_.head_stride = pages_.token_stride * block_tokens;
      pages_.block_stride = pages_.head_stride * shape.kv_heads;
      values_at = row;
    }
    memory_.emplace(layer * shape.layers, std::byte{0xee});
    for (int i = 0; i < shape.layers; ++i) {
      pages_.keys.push_back(memory_->data() + i * layer);
      pages_.values.push_back(pages_.keys.back() + values_at);
    }
    std::vector<int32_t> blocks(pages_.blocks);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), *rng);
    pages_.block_table.assign(blocks.begin(), blocks.begin() + used);
  }

  // Computed from PageLayout's comments, not by the code under test.
  std::byte* At(int layer, KvPart part, int head, int token) const {
    const auto& bases = part == KvPart::kK ? pages_.keys : pages_.values;
    const int at = pages_.first_token + token;
    return bases[layer] +
           pages_.block_table[at / pages_.block_tokens] * pages_.block_stride +
           (at % pages_.block_tokens) * pages_.token_stride +
           head * pages_.head_stride;
  }

  const KvPages& pages() const { return pages_; }
  absl::Span<const std::byte> bytes() const { return memory_->bytes(); }

 private:
  KvPages pages_;
  std::optional<AlignedMemory> memory_;
};

// The cache's bytes with the rows of `kv` written into it.
std::vector<std::byte> Filled(const PagedCache& cache, const KvView& kv) {
  const absl::Span<const std::byte> before = cache.bytes();
  std::vector<std::byte> after(before.begin(), before.end());
  for (int layer = 0; layer < kv.shape().layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < kv.shape().kv_heads; ++head) {
        for (int token = 0; token < kv.shape().tokens; ++token) {
          std::memcpy(after.data() +
                          (cache.At(layer, part, head, token) - before.data()),
                      kv.At(layer, part, head, token), kv.shape().head_bytes());
        }
      }
    }
  }
  return after;
}

struct PagesCase {
  KvShape shape;
  int block_tokens;
  int first_token;
  int shift;  // of the positions
};

class PagesTest : public testing::TestWithParam<std::tuple<Level, PageLayout>> {
};

// A chunk in which base keeps some tokens raw, keeps one stream as rows, and
// codes the others.
EncodedChunk ChunkWithOutliers(const KvShape& shape) {
  ChunkOptions options;
  options.shape = shape;
  options.rotary_dim = shape.head_dim;
  EncodedChunk chunk(options);
  chunk.kv.Set(0, KvPart::kK, 0, 1, 2, 3e4f);
  for (int token = 0; token < shape.tokens; ++token) {
    chunk.kv.Set(shape.layers - 1, KvPart::kV, 0, token, 1,
                 token % 2 == 0 ? 3e4f : -3e4f);
  }
  chunk.object = Encode(chunk.header, chunk.kv.view());
  chunk.index.emplace(*ObjectIndex::Parse(chunk.object, chunk.object.size()));
  return chunk;
}

TEST_P(PagesTest, GetTheRowsOfAViewAndNoOtherByteChanges) {
  const auto [level, layout] = GetParam();
  std::mt19937 rng(11);
  for (const PagesCase& each :
       {PagesCase{{2, 2, 70, 64, Dtype::kBf16}, 16, 21, 500},
        PagesCase{{2, 2, 48, 64, Dtype::kBf16}, 16, 32, 0},
        PagesCase{{1, 3, 5, 8, Dtype::kFp16}, 4, 3, 7},
        PagesCase{{2, 1, 9, 16, Dtype::kFp32}, 1, 2, 1},
        PagesCase{{1, 2, 9, 8, Dtype::kBf16}, 64, 50, 1}}) {
    const EncodedChunk chunk = ChunkWithOutliers(each.shape);
    const auto wanted = Shifted(chunk.header.positions, each.shift);
    KvBuffer rows(each.shape, Layout::kTokenMajor);
    ASSERT_TRUE(DecodeAll(chunk.object, level, wanted, rows.view()).ok());
    const PagedCache cache(each.shape, layout, each.block_tokens,
                           each.first_token, &rng);
    const std::vector<std::byte> expected = Filled(cache, rows.view());
    const auto pages = KvDestination::InPages(each.shape, cache.pages());
    ASSERT_TRUE(pages.ok()) << pages.status();
    ASSERT_TRUE(DecodeAll(chunk.object, level, wanted, *pages).ok());
    EXPECT_TRUE(cache.bytes() == absl::MakeConstSpan(expected))
        << each.shape.tokens << " tokens of " << each.block_tokens;
  }
}

// The pages hold the layers and heads of one rank. Layer 0 of the pages is the
// first layer of the slice.
TEST_P(PagesTest, PagesOfASliceGetItsRows) {
  const auto [level, layout] = GetParam();
  std::mt19937 rng(12);
  const KvShape whole{3, 4, 20, 32, Dtype::kBf16};
  const KvSlice slice{1, 3, 1, 3};
  const EncodedChunk chunk = ChunkWithOutliers(whole);
  const ObjectDecoder decoder = chunk.Decoder(chunk.header.positions);
  const KvShape shape{slice.layers(), slice.heads(), 20, 32, Dtype::kBf16};
  const PagedCache cache(shape, layout, 16, 5, &rng);
  KvBuffer rows(shape, Layout::kTokenMajor);
  const auto pages = KvDestination::InPages(shape, cache.pages());
  ASSERT_TRUE(pages.ok()) << pages.status();
  for (const KvDestination& to : {KvDestination(rows.view()), *pages}) {
    for (int layer = 0; layer < slice.layers(); ++layer) {
      ASSERT_TRUE(
          decoder
              .DecodeLayerOf(chunk.object, level, slice.layer_begin + layer,
                             slice.head_begin, slice.head_end, to.Layer(layer))
              .ok());
    }
  }
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        for (int token = 0; token < shape.tokens; ++token) {
          ASSERT_EQ(std::memcmp(cache.At(layer, part, head, token),
                                rows.view().At(layer, part, head, token),
                                shape.head_bytes()),
                    0);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    AllLevelsAndLayouts, PagesTest,
    testing::Combine(testing::ValuesIn(LevelsOf(kApartLevels)),
                     testing::Values(PageLayout::kApart, PageLayout::kInBlock,
                                     PageLayout::kSideBySide,
                                     PageLayout::kPadded)));

}  // namespace
}  // namespace kdn::codec
