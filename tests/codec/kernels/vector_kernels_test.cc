#include "codec/kernels/vector_kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace kdn::codec::kernels {
namespace {

// Lengths around every vector width, so that tails are tested.
const size_t kCounts[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 128, 131};

std::vector<float> AnyFloats(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<float> values(count);
  for (float& value : values)
    value = std::bit_cast<float>(static_cast<uint32_t>(rng()));
  return values;
}

class ConversionTest : public testing::TestWithParam<Dtype> {};

TEST_P(ConversionTest, StoresLikeTheScalarCode) {
  const Dtype dtype = GetParam();
  for (size_t count : kCounts) {
    for (size_t misalign : {0, 1}) {
      const std::vector<float> values = AnyFloats(count, count);
      std::vector<std::byte> got(count * SizeOf(dtype) + misalign);
      std::vector<std::byte> expected = got;
      StoreRow(dtype, values.data(), count, got.data() + misalign);
      StoreFloats(dtype, values.data(), count, expected.data() + misalign);
      EXPECT_EQ(got, expected) << count;
    }
  }
}

TEST_P(ConversionTest, LoadsEveryPatternLikeTheScalarCode) {
  const Dtype dtype = GetParam();
  const size_t count = 65536;
  std::vector<std::byte> bits(count * SizeOf(dtype) + 1);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t pattern = dtype == Dtype::kFp32 ? i * 65537 : i;
    std::memcpy(bits.data() + i * SizeOf(dtype), &pattern, SizeOf(dtype));
  }
  std::vector<float> got(count);
  std::vector<float> expected(count);
  LoadRow(dtype, bits.data(), count, got.data());
  LoadFloats(dtype, bits.data(), count, expected.data());
  EXPECT_EQ(std::memcmp(got.data(), expected.data(), count * 4), 0);
  LoadRow(dtype, bits.data() + 1, count, got.data());
  LoadFloats(dtype, bits.data() + 1, count, expected.data());
  EXPECT_EQ(std::memcmp(got.data(), expected.data(), count * 4), 0);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ConversionTest,
                         testing::Values(Dtype::kBf16, Dtype::kFp16,
                                         Dtype::kFp32));

TEST(CopyOut, CopiesExactlyWhateverTheAlignment) {
  std::vector<std::byte> from(700);
  std::mt19937 rng(2);
  for (std::byte& byte : from) byte = static_cast<std::byte>(rng());
  std::vector<std::byte> memory(1024);
  const size_t to_line = -reinterpret_cast<uintptr_t>(memory.data()) % 64;
  for (size_t bytes : {0, 1, 63, 64, 65, 128, 256, 512}) {
    for (size_t misalign : {0, 1, 16, 32}) {
      for (size_t ahead : {0, 6144}) {
        std::vector<std::byte> expected(1024, std::byte{7});
        const size_t at = to_line + misalign;
        std::copy_n(from.begin() + misalign, bytes, expected.begin() + at);
        std::fill(memory.begin(), memory.end(), std::byte{7});
        CopyOut(from.data() + misalign, bytes, memory.data() + at, ahead);
        FinishCopyOut();
        EXPECT_EQ(memory, expected) << bytes << " at " << misalign;
      }
    }
  }
}

TEST(MaxAbsBits, FindsTheLargestMagnitude) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  for (size_t count : kCounts) {
    std::vector<float> row(count);
    float largest = 0.0f;
    for (float& value : row) {
      value = normal(rng);
      largest = std::max(largest, std::fabs(value));
    }
    EXPECT_EQ(std::bit_cast<float>(MaxAbsBits(row.data(), count)), largest);
    std::vector<uint32_t> maxima(count, 0);
    RaiseMaxAbsBits(row.data(), count, maxima.data());
    for (float& value : row) value *= 0.5f;
    RaiseMaxAbsBits(row.data(), count, maxima.data());
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(std::bit_cast<float>(maxima[i]), std::fabs(2.0f * row[i]));
    }
  }
}

TEST(MaxAbsBits, AnythingNotFiniteIsAtLeastInfinity) {
  for (float bad : {std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN(),
                    -std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> row(19, 3.0e38f);
    EXPECT_LT(MaxAbsBits(row.data(), row.size()), kInfinityBits);
    row[11] = bad;
    EXPECT_GE(MaxAbsBits(row.data(), row.size()), kInfinityBits);
  }
}

TEST(Quantise, RoundsToTheNearestInteger) {
  for (size_t count : kCounts) {
    std::mt19937 rng(count);
    std::uniform_real_distribution<float> uniform(-127.0f, 127.0f);
    std::vector<float> row(count);
    for (float& value : row) value = uniform(rng);
    row[0] = 127.0f;
    row[count - 1] = -127.0f;
    const float scale = 0.37f;
    std::vector<float> scales(count, scale);
    std::vector<float> scaled(count);
    for (size_t i = 0; i < count; ++i) scaled[i] = row[i] * scale;
    std::vector<int8_t> one(count);
    std::vector<int8_t> each(count);
    QuantiseByOne(scaled.data(), scale, count, one.data());
    QuantiseByEach(scaled.data(), scales.data(), count, each.data());
    EXPECT_EQ(one, each);
    std::vector<float> back(count);
    DequantiseByOne(one.data(), scale, count, back.data());
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(one[i], std::nearbyint(scaled[i] / scale)) << scaled[i];
      EXPECT_EQ(back[i], static_cast<float>(one[i]) * scale);
    }
    DequantiseByEach(one.data(), scales.data(), count, scaled.data());
    EXPECT_EQ(scaled, back);
  }
}

std::vector<float> Normal(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(rng);
  return values;
}

std::vector<int8_t> AnyBytes(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int8_t> values(count);
  for (int8_t& value : values) value = static_cast<int8_t>(rng());
  return values;
}

TEST(AddDifferences, AddsToTheLargestAndTheSquares) {
  for (size_t count : kCounts) {
    const std::vector<float> a = Normal(count, 1);
    const std::vector<float> b = Normal(count, 2);
    float largest = 0;
    double expected = 0;
    for (size_t i = 0; i < count; ++i) {
      largest = std::max(largest, std::fabs(a[i] - b[i]));
      expected += 2 * (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    }
    Differences differences;
    AddDifferences(a.data(), b.data(), count, &differences);
    AddDifferences(b.data(), a.data(), count, &differences);
    EXPECT_EQ(differences.max(), largest);
    EXPECT_NEAR(differences.sum_of_squares(), expected, 1e-5 * expected);
  }
}

TEST(AddDifferences, ElementsGiveTheSameAsTheirFloats) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kFp16, Dtype::kFp32}) {
    for (size_t count : kCounts) {
      // Also offsets that are no multiple of a cache line or of an element.
      for (const size_t offset : {0, 1, 2}) {
        const size_t bytes = count * SizeOf(dtype);
        std::vector<std::byte> a(offset + bytes);
        std::vector<std::byte> b(offset + bytes);
        StoreFloats(dtype, Normal(count, 1).data(), count, a.data() + offset);
        StoreFloats(dtype, Normal(count, 2).data(), count, b.data() + offset);
        std::vector<float> a_row(count);
        std::vector<float> b_row(count);
        LoadFloats(dtype, a.data() + offset, count, a_row.data());
        LoadFloats(dtype, b.data() + offset, count, b_row.data());
        Differences expected;
        AddDifferences(a_row.data(), b_row.data(), count, &expected);
        Differences differences;
        AddDifferences(dtype, a.data() + offset, b.data() + offset, count,
                       &differences);
        EXPECT_EQ(differences.max(), expected.max());
        EXPECT_NEAR(differences.sum_of_squares(), expected.sum_of_squares(),
                    1e-6 * expected.sum_of_squares());
      }
    }
  }
}

TEST(AddDifferences, SquaresThatNoFloatHoldsAreAdded) {
  for (const float value : {1e-30f, 1e-16f, 1e16f, 1e30f}) {
    const std::vector<float> a(20, value);
    const std::vector<float> b(20, 0.0f);
    Differences differences;
    AddDifferences(a.data(), b.data(), a.size(), &differences);
    const double expected = 20 * double{value} * value;
    EXPECT_NEAR(differences.sum_of_squares(), expected, 1e-6 * expected);
  }
}

TEST(SquaredDistance, AgreesWithAPlainLoop) {
  for (const float factor : {1e-30f, 1e-18f, 1.0f, 1e18f, 1e30f}) {
    for (size_t count : kCounts) {
      std::vector<float> a = Normal(count, 1);
      std::vector<float> b = Normal(count, 2);
      double expected = 0;
      for (size_t i = 0; i < count; ++i) {
        a[i] *= factor;
        b[i] *= factor;
        expected += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
      }
      EXPECT_NEAR(SquaredDistance(a.data(), b.data(), count), expected,
                  1e-5 * expected);
      EXPECT_EQ(SquaredDistance(a.data(), a.data(), count), 0.0);
    }
  }
}

TEST(Centre, SubtractsTheMeanAndScales) {
  for (size_t count : kCounts) {
    const std::vector<float> row = Normal(count, 3);
    const std::vector<float> mean = Normal(count, 4);
    std::vector<float> out(count + 1, 9.0f);
    Centre(row.data(), mean.data(), 1.7f, count, out.data());
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(out[i], (row[i] - mean[i]) * 1.7f);
    }
    EXPECT_EQ(out[count], 9.0f);
  }
}

// A fused multiply-add would round once.
TEST(ScaleAndShift, RoundsAfterEachStep) {
  for (size_t count : kCounts) {
    std::mt19937 rng(count);
    const std::vector<float> mean = Normal(count, 5);
    std::vector<int32_t> sums(count);
    for (int32_t& sum : sums) sum = static_cast<int32_t>(rng()) / 512;
    std::vector<float> out(count + 1, 9.0f);
    ScaleAndShift(sums.data(), 1.1e-6f, mean.data(), count, out.data());
    for (size_t i = 0; i < count; ++i) {
      volatile float product = static_cast<float>(sums[i]) * 1.1e-6f;
      EXPECT_EQ(out[i], product + mean[i]);
    }
    EXPECT_EQ(out[count], 9.0f);
  }
}

TEST(RoundToValues, RoundsToTheNearestInteger) {
  for (size_t count : kCounts) {
    std::vector<float> row = Normal(count, 6);
    for (float& value : row) value *= 30.0f;
    row[0] = 127.499f;
    row[count - 1] = -127.499f;
    std::vector<int8_t> values(count + 1, 99);
    ASSERT_TRUE(RoundToValues(row.data(), count, 127, values.data()));
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(values[i], std::nearbyint(row[i])) << row[i];
    }
    EXPECT_EQ(values[count], 99);
  }
  const float ties[] = {0.5f, 1.5f, -0.5f, -2.5f};
  int8_t values[4];
  ASSERT_TRUE(RoundToValues(ties, 4, 127, values));
  EXPECT_EQ(std::vector<int8_t>(values, values + 4),
            (std::vector<int8_t>{0, 2, 0, -2}));
}

TEST(RoundToValues, DetectsValuesOutOfRange) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float bad : {127.5f, -127.5f, 1e30f, infinity, -infinity,
                    std::numeric_limits<float>::quiet_NaN()}) {
    for (size_t count : kCounts) {
      for (size_t at : {size_t{0}, count / 2, count - 1}) {
        std::vector<float> row(count, 1.0f);
        row[at] = bad;
        std::vector<int8_t> values(count);
        EXPECT_FALSE(RoundToValues(row.data(), count, 127, values.data()));
        row[at] = 7.4f;
        EXPECT_TRUE(RoundToValues(row.data(), count, 7, values.data()));
        EXPECT_FALSE(RoundToValues(row.data(), count, 6, values.data()));
      }
    }
  }
}

TEST(RefineByThirds, TheSignOfTheValueDecidesTheDirection) {
  const std::vector<int8_t> refinements = {1, -1, 1, -1, 1, -1, 0};
  std::vector<int8_t> values = {5, 5, -5, -5, 0, 0, -42};
  RefineByThirds(refinements.data(), values.size(), values.data());
  EXPECT_EQ(values, (std::vector<int8_t>{16, 14, -16, -14, 1, -1, -126}));
}

TEST(ToCellMiddles, MovesValuesTowardsZero) {
  const std::vector<int8_t> shrinks = {2, 2, 2, 0, 0, 4};
  std::vector<int8_t> values = {3, -3, 0, 14, -14, 1};
  ToCellMiddles(shrinks.data(), 9, values.size(), values.data());
  EXPECT_EQ(values, (std::vector<int8_t>{25, -25, 0, 126, -126, 5}));
}

// A stream is checked only after all of it was decoded, so the loops may get
// any values.
TEST(ToCellMiddles, AnyValuesWrapAroundLikeTheScalarCode) {
  for (size_t count : kCounts) {
    const std::vector<int8_t> first = AnyBytes(count, 7);
    const std::vector<int8_t> second = AnyBytes(count, 8);
    std::vector<int8_t> refined = first;
    std::vector<int8_t> middles = first;
    RefineByThirds(second.data(), count, refined.data());
    ToCellMiddles(second.data(), 9, count, middles.data());
    for (size_t i = 0; i < count; ++i) {
      const int v = first[i];
      const int sense = v > 0 ? 1 : v < 0 ? -1 : 0;
      EXPECT_EQ(refined[i],
                static_cast<int8_t>(3 * v + (v < 0 ? -1 : 1) * second[i]));
      EXPECT_EQ(middles[i], static_cast<int8_t>(9 * v - sense * second[i]));
    }
  }
}

}  // namespace
}  // namespace kdn::codec::kernels
