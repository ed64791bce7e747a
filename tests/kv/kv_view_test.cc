#include "kv/kv_view.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <vector>

namespace kdn {
namespace {

const KvShape kShape{3, 2, 5, 4, Dtype::kBf16};

TEST(KvViewTest, BothDenseLayoutsCoverEveryByteOnce) {
  for (const KvStrides& strides :
       {KvStrides::TokenMajor(kShape), KvStrides::HeadMajor(kShape)}) {
    std::vector<std::byte> memory(kShape.bytes());
    const MutableKvView view(memory.data(), kShape, strides);
    std::set<const std::byte*> rows;
    for (int layer = 0; layer < 3; ++layer) {
      for (KvPart part : {KvPart::kK, KvPart::kV}) {
        for (int head = 0; head < 2; ++head) {
          for (int token = 0; token < 5; ++token) {
            const std::byte* row = view.At(layer, part, head, token);
            EXPECT_EQ((row - memory.data()) % kShape.head_bytes(), 0u);
            EXPECT_TRUE(rows.insert(row).second);
          }
        }
      }
    }
    EXPECT_EQ(rows.size() * kShape.head_bytes(), kShape.bytes());
    EXPECT_TRUE(ValidateInside(kShape, strides, 0, kShape.bytes()).ok());
    EXPECT_FALSE(ValidateInside(kShape, strides, 1, kShape.bytes()).ok());
  }
}

TEST(KvViewTest, PartsOfAViewShowTheSameMemory) {
  std::vector<std::byte> memory(kShape.bytes());
  const MutableKvView view(memory.data(), kShape, KvStrides::HeadMajor(kShape));
  EXPECT_EQ(view.Layer(2).At(0, KvPart::kV, 1, 3),
            view.At(2, KvPart::kV, 1, 3));
  EXPECT_EQ(view.Tokens(2, 3).At(1, KvPart::kK, 0, 1),
            view.At(1, KvPart::kK, 0, 3));
  EXPECT_EQ(view.Layer(2).shape().layers, 1);
}

TEST(KvViewTest, StridesFromAPeerCannotLeaveTheMemory) {
  KvStrides strides = KvStrides::TokenMajor(kShape);
  strides.head = -2;
  EXPECT_FALSE(ValidateInside(kShape, strides, 0, 1u << 30).ok());
  strides = KvStrides::TokenMajor(kShape);
  strides.layer = std::numeric_limits<int64_t>::max();
  EXPECT_FALSE(ValidateInside(kShape, strides, 0, 1u << 30).ok());
  strides = KvStrides::TokenMajor(kShape);
  EXPECT_FALSE(ValidateInside(kShape, strides,
                              std::numeric_limits<uint64_t>::max(), 1u << 30)
                   .ok());
  KvShape empty = kShape;
  empty.tokens = 0;
  EXPECT_FALSE(ValidateInside(empty, strides, 0, 1u << 30).ok());
}

TEST(KvSliceTest, MustBeANonEmptyPartOfTheModel) {
  ModelSpec spec;
  spec.num_layers = 4;
  spec.num_kv_heads = 2;
  spec.head_dim = 8;
  EXPECT_TRUE(Validate(WholeOf(spec), spec).ok());
  EXPECT_TRUE(Validate(KvSlice{1, 3, 1, 2}, spec).ok());
  for (const KvSlice& bad :
       {KvSlice{0, 5, 0, 2}, KvSlice{2, 2, 0, 2}, KvSlice{-1, 2, 0, 2},
        KvSlice{0, 4, 1, 1}, KvSlice{0, 4, 0, 3}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Validate(bad, spec)));
  }
}

}  // namespace
}  // namespace kdn
