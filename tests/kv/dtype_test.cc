#include "kv/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace kdn {
namespace {

TEST(DtypeTest, EveryBf16ValueIsTheSameAfterFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = Bf16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(FloatToBf16(value), bits);
  }
}

TEST(DtypeTest, EveryFp16ValueIsTheSameAfterFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = Fp16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(FloatToFp16(value), bits) << value;
  }
}

TEST(DtypeTest, NanStaysNan) {
  const float nan = std::numeric_limits<float>::signaling_NaN();
  EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(nan))));
  EXPECT_TRUE(std::isnan(Fp16ToFloat(FloatToFp16(nan))));
}

TEST(DtypeTest, RoundsToNearestEven) {
  EXPECT_EQ(FloatToBf16(1.0f + 0x1p-8f), FloatToBf16(1.0f));
  EXPECT_EQ(FloatToBf16(1.0f + 0x1.8p-7f), FloatToBf16(1.0f + 0x1p-6f));
  EXPECT_EQ(FloatToFp16(1.0f + 0x1p-11f), FloatToFp16(1.0f));
  EXPECT_EQ(FloatToFp16(1.0f + 0x1.8p-10f), FloatToFp16(1.0f + 0x1p-9f));
}

TEST(DtypeTest, Fp16OverflowsToInfinity) {
  EXPECT_EQ(Fp16ToFloat(FloatToFp16(65504.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(Fp16ToFloat(FloatToFp16(65520.0f))));
  EXPECT_TRUE(std::isinf(Fp16ToFloat(FloatToFp16(-1e30f))));
}

TEST(DtypeTest, TheLargestValueIsTheLastBeforeInfinity) {
  EXPECT_EQ(FloatToBf16(LargestOf(Dtype::kBf16)) + 1, 0x7f80);
  EXPECT_EQ(FloatToFp16(LargestOf(Dtype::kFp16)) + 1, 0x7c00);
  EXPECT_EQ(LargestOf(Dtype::kFp32), std::numeric_limits<float>::max());
}

TEST(DtypeTest, LoadAndStoreAgreeForEveryDtype) {
  const std::vector<float> values = {0.0f, -1.5f, 3.25f, 1024.0f};
  for (Dtype dtype : {Dtype::kBf16, Dtype::kFp16, Dtype::kFp32}) {
    std::vector<std::byte> memory(values.size() * SizeOf(dtype));
    StoreFloats(dtype, values.data(), values.size(), memory.data());
    std::vector<float> back(values.size());
    LoadFloats(dtype, memory.data(), back.size(), back.data());
    EXPECT_EQ(back, values) << Name(dtype);
    EXPECT_EQ(ParseDtype(Name(dtype)), dtype);
  }
  EXPECT_FALSE(ParseDtype("int3").has_value());
}

}  // namespace
}  // namespace kdn
