#include "codec/cuda/byte_lanes.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "codec/cuda/calibration_image.h"
#include "codec/cuda/row_store.h"
#include "codec/cuda/value_tile.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/transform/symbol_bands.h"
#include "kv/dtype.h"

namespace kdn::codec::cuda {
namespace {

// Every byte with every other byte, at every place in a word.
TEST(ByteLanes, RefineAsTheCpuDoes) {
  for (int value = 0; value < 256; ++value) {
    for (int other = 0; other < 256; ++other) {
      const uint8_t values[4] = {
          static_cast<uint8_t>(value), static_cast<uint8_t>(other),
          static_cast<uint8_t>(value ^ other), static_cast<uint8_t>(other)};
      const uint8_t refinements[4] = {
          static_cast<uint8_t>(other), static_cast<uint8_t>(value),
          static_cast<uint8_t>(other), static_cast<uint8_t>(value + other)};
      int8_t expected[4];
      std::memcpy(expected, values, 4);
      kernels::RefineByThirds(reinterpret_cast<const int8_t*>(refinements), 4,
                              expected);
      const uint32_t refined = RefineBytes(LoadAligned<uint32_t>(values),
                                           LoadAligned<uint32_t>(refinements));
      ASSERT_EQ(refined, LoadAligned<uint32_t>(expected)) << value << other;
    }
  }
}

TEST(ByteLanes, MoveToMiddlesAsTheCpuDoes) {
  for (const int cell : {3, 9}) {
    for (int shrink = 0; 2 * shrink < cell; ++shrink) {
      for (int value = 0; value < 256; ++value) {
        int8_t values[4] = {static_cast<int8_t>(value), 0,
                            static_cast<int8_t>(value + 77),
                            static_cast<int8_t>(-value)};
        const int8_t shrinks[4] = {
            static_cast<int8_t>(shrink), static_cast<int8_t>(shrink),
            static_cast<int8_t>(shrink), static_cast<int8_t>(shrink)};
        const uint32_t middles = CellMiddles(LoadAligned<uint32_t>(values),
                                             cell, InEachByte(shrink));
        kernels::ToCellMiddles(shrinks, cell, 4, values);
        ASSERT_EQ(middles, LoadAligned<uint32_t>(values))
            << cell << " " << shrink << " " << value;
      }
    }
  }
}

// The values of every symbol, in a calibration's tables for a device.
TEST(ValueTables, UnpackSymbolsAsTheCpuDoes) {
  const CalibrationImage image(
      Calibration::Uncalibrated({.layers = 1, .kv_heads = 1, .head_dim = 128}));
  const StreamTransform& transform = image.calibration().Of(0, KvPart::kK, 0);
  const TransformRef& ref = image.transforms()[image.IndexOf(transform)];
  for (size_t band = 0; band < transform.classes[0].bands.size(); ++band) {
    const BandStep& base = transform.classes[0].bands[band][0];
    if (base.mode == BandMode::kAbsent) continue;
    const ValueTable& plain = image.values()[static_cast<int>(base.mode) - 1];
    const ValueTable& middles =
        image
            .values()[image.bands()[ref.bands_at + band * kLevelSteps].middles];
    const int count = ValuesPerSymbol(base.mode);
    for (int symbol = 0; symbol < 256; ++symbol) {
      const std::vector<uint8_t> symbols(kBandComponents,
                                         static_cast<uint8_t>(symbol));
      int8_t expected[kBandComponents];
      UnpackBand(base.mode, symbols.data(), 1, expected, kBandComponents);
      ASSERT_EQ(std::memcmp(&plain.values[symbol], expected, count), 0);
      const int8_t shrinks[4] = {
          static_cast<int8_t>(base.shrink), static_cast<int8_t>(base.shrink),
          static_cast<int8_t>(base.shrink), static_cast<int8_t>(base.shrink)};
      kernels::ToCellMiddles(shrinks, CellOf(0), count, expected);
      ASSERT_EQ(std::memcmp(&middles.values[symbol], expected, count), 0);
    }
  }
}

TEST(ValueTables, APatchedMiddleIsTheMiddleOfThePatchedValue) {
  for (const int cell : {3, 9}) {
    for (int shrink = 0; 2 * shrink < cell; ++shrink) {
      for (int value = -127 / cell; value <= 127 / cell; ++value) {
        const auto middle = static_cast<int8_t>(
            CellMiddles(static_cast<uint8_t>(value), cell, shrink));
        for (int patched = -127 / cell; patched <= 127 / cell; ++patched) {
          const auto expected = static_cast<int8_t>(
              CellMiddles(static_cast<uint8_t>(patched), cell, shrink));
          ASSERT_EQ(Patched(middle, static_cast<int8_t>(patched - value), cell,
                            shrink),
                    expected)
              << value << " to " << patched << " in cells of " << cell;
        }
      }
    }
  }
}

TEST(RowStore, ElementsHaveTheBitsOfTheCpus) {
  // The steps go through all exponents and include infinities, NaNs and ties.
  for (uint64_t bits = 0; bits <= 0xffffffffu; bits += 0x0ff1) {
    for (const uint32_t low : {0u, 0x8000u, 0x1000u}) {
      const float value =
          FloatOf((static_cast<uint32_t>(bits) & ~0x1fffu) | low);
      ASSERT_EQ(Bf16Of(value), FloatToBf16(value)) << bits;
      ASSERT_EQ(Fp16Of(value), FloatToFp16(value)) << bits;
    }
  }
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    ASSERT_EQ(BitsOf(FloatOfBf16(static_cast<uint16_t>(bits))),
              BitsOf(Bf16ToFloat(static_cast<uint16_t>(bits))));
  }
}

TEST(RowStore, SumsBecomeFloatsExactly) {
  for (const int32_t sum : {0, 1, -1, 77777, -77777, 1 << 22, -(1 << 22)}) {
    EXPECT_EQ(BitsOf(FloatOfSum(kNoSum + sum)),
              BitsOf(static_cast<float>(sum)));
    EXPECT_EQ(FloatOfInt(sum), static_cast<float>(sum));
  }
}

TEST(RowStore, MisalignedRowsAreWrittenByteByByte) {
  alignas(16) uint8_t aligned[64] = {};
  alignas(16) uint8_t shifted[64] = {};
  for (const ElementType type :
       {ElementType::kBf16, ElementType::kFp16, ElementType::kFp32}) {
    const int bytes = ElementBytes(type);
    for (int i = 0; i < 8; ++i) {
      StoreElement(type, 0.37f * static_cast<float>(i - 3), aligned, i);
      StoreElement(type, 0.37f * static_cast<float>(i - 3), shifted + 3, i);
    }
    EXPECT_EQ(std::memcmp(aligned, shifted + 3, 8 * bytes), 0);
    float values[8];
    for (int i = 0; i < 8; ++i) values[i] = 0.37f * static_cast<float>(i - 3);
    alignas(16) uint8_t eight[32];
    StoreEight(type, values, eight, 0);
    EXPECT_EQ(std::memcmp(aligned, eight, 8 * bytes), 0);
  }
}

}  // namespace
}  // namespace kdn::codec::cuda
