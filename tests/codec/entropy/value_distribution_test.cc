#include "codec/entropy/value_distribution.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "codec/kernels/vector_kernels.h"
#include "codec/transform/symbol_bands.h"
#include "kv/crc32c.h"

namespace kdn::codec {
namespace {

uint64_t& At(ValueCounts* counts, int value) {
  return (*counts)[value + kValueMax];
}

// Counts that fall linearly on both sides of the value 0, not quite symmetric.
ValueCounts Pyramid(int width, uint64_t height) {
  ValueCounts counts{};
  for (int value = -width; value <= width; ++value) {
    At(&counts, value) =
        height * (width + 1 - std::abs(value)) + (value > 0 ? height / 3 : 0);
  }
  return counts;
}

TEST(Thirds, RefiningTheCoarserValueGivesTheValue) {
  for (int value = -kValueMax; value <= kValueMax; ++value) {
    const int coarser = Coarser(value);
    const int refinement = Refinement(value, coarser);
    EXPECT_LE(std::abs(refinement), 1) << value;
    EXPECT_EQ(3 * coarser + (coarser < 0 ? -refinement : refinement), value);
    EXPECT_EQ(coarser, std::lround(value / 3.0));
    EXPECT_EQ(Coarser(-value), -coarser);
    EXPECT_EQ(AtStep(value, 2), value);
    EXPECT_EQ(AtStep(value, 1), coarser);
    EXPECT_EQ(AtStep(value, 0), Coarser(coarser));
    // Cells nest: a coarsest cell is the nine finest ones around its middle.
    EXPECT_LE(std::abs(value - CellOf(0) * AtStep(value, 0)), 4);
  }
}

TEST(Thirds, KernelsGiveTheSameValues) {
  std::vector<int8_t> values(2 * kValueMax + 1);
  std::iota(values.begin(), values.end(), static_cast<int8_t>(-kValueMax));
  for (int times : {0, 1, 2}) {
    std::vector<int8_t> coarse(values.size());
    kernels::Coarsen(values.data(), values.size(), times, coarse.data());
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(coarse[i], AtStep(values[i], 2 - times)) << int{values[i]};
    }
  }
  std::vector<int8_t> refinements(values.size());
  std::vector<int8_t> back(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    back[i] = static_cast<int8_t>(Coarser(values[i]));
    refinements[i] = static_cast<int8_t>(Refinement(values[i], back[i]));
  }
  kernels::RefineByThirds(refinements.data(), back.size(), back.data());
  EXPECT_EQ(back, values);
}

TEST(CodedCounts, CountsEachValueByItsCodedValue) {
  for (int only = -kValueMax; only <= kValueMax; ++only) {
    ValueCounts finest{};
    At(&finest, only) = 5;
    for (int step = 0; step < kLadderSteps; ++step) {
      const int value = AtStep(only, step);
      ValueCounts expected{};
      At(&expected, value) = 5;
      EXPECT_EQ(CodedCounts(finest, step, false), expected);
      if (step == 0) continue;
      expected = {};
      At(&expected, Refinement(value, AtStep(only, step - 1))) = 5;
      EXPECT_EQ(CodedCounts(finest, step, true), expected);
    }
  }
}

TEST(SymbolTable, FollowsTheProductOfTheCounts) {
  for (BandMode mode : {BandMode::kSingle, BandMode::kPair, BandMode::kQuad}) {
    const int count = ValuesPerSymbol(mode);
    const ValueCounts counts = Pyramid(LargestValue(mode), 1000);
    const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
    const RansTable table = SymbolTable(counts, mode);
    for (int symbol = 0; symbol < 256; ++symbol) {
      const auto byte = static_cast<uint8_t>(symbol);
      const std::vector<uint8_t> symbols(kBandComponents, byte);
      int8_t values[kBandComponents];
      UnpackBand(mode, symbols.data(), 1, values, kBandComponents);
      double probability = 1.0;
      for (int i = 0; i < count; ++i) {
        const bool in_range = std::abs(values[i]) <= LargestValue(mode);
        probability *= in_range ? counts[values[i] + kValueMax] / total : 0.0;
      }
      const double expected = probability * kRansTotal;
      EXPECT_NEAR(table.frequency(byte), expected, 1.0 + 0.02 * expected)
          << "mode " << static_cast<int>(mode) << " symbol " << symbol;
      EXPECT_EQ(table.frequency(byte) > 0, probability > 0.0);
    }
  }
}

TEST(SymbolTable, AlwaysHasTheZeroSymbol) {
  ValueCounts nothing{};
  ValueCounts no_zeros{};
  At(&no_zeros, 1) = 1;
  ValueCounts huge{};
  huge.fill(uint64_t{1} << 55);
  At(&huge, 0) = 0;
  for (BandMode mode : {BandMode::kSingle, BandMode::kPair, BandMode::kQuad}) {
    for (const ValueCounts& counts : {nothing, no_zeros, huge}) {
      EXPECT_GT(SymbolTable(counts, mode).frequency(ZeroSymbol(mode)), 0u);
    }
    EXPECT_EQ(SymbolTable(nothing, mode).frequency(ZeroSymbol(mode)),
              kRansTotal);
  }
}

TEST(SymbolTable, LeavesOutSymbolsRarerThanOnceInTwoToThe17th) {
  ValueCounts counts{};
  At(&counts, 0) = 1 << 20;
  At(&counts, 1) = 9;
  At(&counts, -1) = 7;
  const RansTable table = SymbolTable(counts, BandMode::kSingle);
  EXPECT_GT(table.frequency(129), 0u);
  EXPECT_EQ(table.frequency(127), 0u);
}

// Streams are coded with these tables, so they may not differ between machines
// or compilers. The number is from x86-64 and g++ 12.
TEST(SymbolTable, IsTheSameEverywhere) {
  uint32_t crc = 0;
  for (int width : {0, 1, 5, 20, 127}) {
    for (uint64_t height : {uint64_t{1}, uint64_t{977}, uint64_t{1} << 47}) {
      for (int step = 0; step < kLadderSteps; ++step) {
        for (BandMode mode :
             {BandMode::kSingle, BandMode::kPair, BandMode::kQuad}) {
          const ValueCounts coded =
              CodedCounts(Pyramid(width, height), step, step > 0);
          const RansTable table = SymbolTable(coded, mode);
          for (int symbol = 0; symbol < 256; ++symbol) {
            const uint32_t frequency =
                table.frequency(static_cast<uint8_t>(symbol));
            crc = ExtendCrc32c(
                crc, {reinterpret_cast<const std::byte*>(&frequency), 4});
          }
        }
      }
    }
  }
  EXPECT_EQ(crc, 4268891827u);
}

}  // namespace
}  // namespace kdn::codec
