#include "codec/transform/symbol_bands.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <random>
#include <vector>

#include "codec/kernels/vector_kernels.h"
#include "tests/codec/supported_isas.h"

namespace kdn::codec {
namespace {

constexpr BandMode kCodedModes[] = {BandMode::kSingle, BandMode::kPair,
                                    BandMode::kQuad};
using Band = std::array<int8_t, kBandComponents>;

Band Unpack(BandMode mode, const std::vector<uint8_t>& symbols) {
  Band band;
  UnpackBand(mode, symbols.data(), 1, band.data(), kBandComponents);
  return band;
}

TEST(SymbolBands, EverySymbolStandsForItsValuesOnly) {
  for (BandMode mode : kCodedModes) {
    const int count = ValuesPerSymbol(mode);
    for (int symbol = 0; symbol < 256; ++symbol) {
      const auto byte = static_cast<uint8_t>(symbol);
      const Band band =
          Unpack(mode, std::vector<uint8_t>(SymbolsPerToken(mode), byte));
      bool in_range = true;
      for (int c = 0; c < kBandComponents; ++c) {
        EXPECT_EQ(band[c], band[c % count]);
        in_range = in_range && std::abs(band[c]) <= LargestValue(mode);
      }
      // Any symbol unpacks to values, and values in range pack to it again.
      if (in_range) {
        EXPECT_EQ(SymbolOf(mode, band.data()), byte);
      }
    }
  }
}

TEST(SymbolBands, EveryCombinationOfValuesComesBack) {
  for (BandMode mode : kCodedModes) {
    const int count = ValuesPerSymbol(mode);
    const int choices = 2 * LargestValue(mode) + 1;
    int combinations = 1;
    for (int i = 0; i < count; ++i) combinations *= choices;
    std::vector<bool> seen(256, false);
    for (int i = 0; i < combinations; ++i) {
      int8_t values[4];
      for (int j = 0, rest = i; j < count; ++j, rest /= choices) {
        values[j] = static_cast<int8_t>(rest % choices - LargestValue(mode));
      }
      const uint8_t symbol = SymbolOf(mode, values);
      EXPECT_FALSE(seen[symbol]);
      seen[symbol] = true;
      const Band band =
          Unpack(mode, std::vector<uint8_t>(SymbolsPerToken(mode), symbol));
      EXPECT_TRUE(std::equal(values, values + count, band.begin()));
    }
  }
}

TEST(SymbolBands, TheFirstValueHasTheLowestBits) {
  const int8_t single[] = {-3};
  EXPECT_EQ(SymbolOf(BandMode::kSingle, single), 125);
  const int8_t pair[] = {-7, 5};
  EXPECT_EQ(SymbolOf(BandMode::kPair, pair), 0xd1);
  const int8_t quad[] = {-1, 0, 1, 1};
  EXPECT_EQ(SymbolOf(BandMode::kQuad, quad), 0b11'11'10'01);
  const int8_t zeros[4] = {};
  for (BandMode mode : kCodedModes) {
    EXPECT_EQ(SymbolOf(mode, zeros), ZeroSymbol(mode));
  }
}

// About every 40th token has a value past its limit.
TEST(SymbolBands, PacksRefinementsUpToTheFirstPastALimit) {
  constexpr int kTokens = 12;
  constexpr size_t kStride = 3 * kBandComponents;
  std::mt19937 rng(1);
  for (BandMode mode : kCodedModes) {
    for (int round = 0; round < 200; ++round) {
      std::array<int8_t, kBandComponents> limits;
      for (int8_t& limit : limits) {
        limit = static_cast<int8_t>(rng() % (LargestValue(mode) + 1));
      }
      std::vector<int8_t> before(kTokens * kStride);
      std::vector<int8_t> refinements(kTokens * kStride);
      int within = kTokens;
      for (int token = kTokens; token-- > 0;) {
        for (int c = 0; c < kBandComponents; ++c) {
          const size_t at = token * kStride + c;
          const int limit = limits[c];
          before[at] = static_cast<int8_t>(static_cast<int>(rng() % 7) - 3);
          refinements[at] = static_cast<int8_t>(
              static_cast<int>(rng() % (2 * limit + 1)) - limit);
          if (rng() % (40 * kBandComponents) == 0) {
            refinements[at] =
                static_cast<int8_t>(rng() % 2 == 0 ? limit + 1 : -limit - 1);
            within = token;
          }
        }
      }
      std::vector<int8_t> now = before;
      kernels::RefineByThirds(refinements.data(), now.size(), now.data());
      std::vector<uint8_t> symbols(kTokens * SymbolsPerToken(mode));
      ASSERT_EQ(PackRefinements(mode,
                                {.now = now.data(),
                                 .before = before.data(),
                                 .stride = kStride,
                                 .tokens = kTokens},
                                limits.data(), symbols.data()),
                within);
      for (int at = 0; at < within * SymbolsPerToken(mode); ++at) {
        const int token = at / SymbolsPerToken(mode);
        const int c = at % SymbolsPerToken(mode) * ValuesPerSymbol(mode);
        ASSERT_EQ(symbols[at],
                  SymbolOf(mode, refinements.data() + token * kStride + c));
      }
    }
  }
}

TEST(SymbolBands, SurelyCodedIsHowFarATableCodesEverything) {
  for (BandMode mode : kCodedModes) {
    for (int left_out = 0; left_out <= LargestValue(mode); ++left_out) {
      std::array<uint32_t, kRansSymbols> counts;
      counts.fill(1);
      // A symbol in which the largest magnitude is left_out.
      int8_t values[4] = {};
      values[ValuesPerSymbol(mode) - 1] = static_cast<int8_t>(-left_out);
      counts[SymbolOf(mode, values)] = 0;
      const auto table = RansTable::Create(NormaliseCounts(counts));
      ASSERT_TRUE(table.ok());
      EXPECT_EQ(SurelyCoded(mode, *table), left_out - 1);
    }
    std::array<uint32_t, kRansSymbols> counts;
    counts.fill(1);
    const auto table = RansTable::Create(NormaliseCounts(counts));
    ASSERT_TRUE(table.ok());
    EXPECT_EQ(SurelyCoded(mode, *table), LargestValue(mode));
    // Real tables give no frequency to bytes that are not symbols.
    const uint32_t bits = 8 / ValuesPerSymbol(mode);
    for (uint32_t symbol = 0; symbol < kRansSymbols; ++symbol) {
      for (uint32_t at = 0; at < 8; at += bits) {
        if ((symbol >> at & ((1u << bits) - 1)) == 0) counts[symbol] = 0;
      }
    }
    const auto real = RansTable::Create(NormaliseCounts(counts));
    ASSERT_TRUE(real.ok());
    EXPECT_EQ(SurelyCoded(mode, *real), LargestValue(mode));
  }
}

// Lane L of a run takes tables[(L >> half_bit) & 1]: that must be the table of
// the half in which the symbol's values lie.
TEST(SymbolBands, LanesTakeTheTableOfTheirHalf) {
  for (BandMode mode : kCodedModes) {
    for (int at = 0; at < 8 * SymbolsPerToken(mode); ++at) {
      const int lane = at % kRansLanes;
      const int component = at % SymbolsPerToken(mode) * ValuesPerSymbol(mode);
      EXPECT_EQ(lane >> HalfBit(mode) & 1, component / (kBandComponents / 2));
    }
  }
}

TEST(SymbolBands, RunsAreWholeSteps) {
  const auto table = RansTable::Create(
      std::vector<uint16_t>(kRansSymbols, kRansTotal / kRansSymbols));
  ASSERT_TRUE(table.ok());
  const std::vector<RansTable> tables(3, *table);
  for (BandMode mode : kCodedModes) {
    for (int tokens : {1, 2, 7, 8, 9, 250, 256, 4096}) {
      const RansRun run = RunOf({mode, {2, 1}, 0}, tables.data(), tokens);
      EXPECT_GE(PaddedTokens(tokens), tokens);
      EXPECT_LT(PaddedTokens(tokens), tokens + kTokenBlock);
      EXPECT_EQ(run.symbols(), static_cast<size_t>(PaddedTokens(tokens)) *
                                   SymbolsPerToken(mode));
      EXPECT_EQ(run.tables[0], &tables[2]);
      EXPECT_EQ(run.tables[1], &tables[1]);
      EXPECT_EQ(run.half_bit, HalfBit(mode));
    }
  }
}

// Symbols that are unpacked and packed again are the same, and other bands are
// not touched.
TEST(SymbolBands, UnpackingFillsOneBandOfEachRow) {
  constexpr int kTokens = 24;
  constexpr int kStride = 48;
  for (BandMode mode : kCodedModes) {
    const int per_token = SymbolsPerToken(mode);
    std::vector<uint8_t> symbols(kTokens * per_token);
    for (size_t i = 0; i < symbols.size(); ++i) {
      symbols[i] = static_cast<uint8_t>(37 * i + 11);
    }
    std::vector<int8_t> values(kTokens * kStride, 99);
    UnpackBand(mode, symbols.data(), kTokens, values.data() + 16, kStride);
    for (int token = 0; token < kTokens; ++token) {
      const Band alone =
          Unpack(mode, {symbols.begin() + token * per_token,
                        symbols.begin() + (token + 1) * per_token});
      const int8_t* row = values.data() + token * kStride;
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), row + 16));
      EXPECT_EQ(std::count(row, row + 16, 99), 16);
      EXPECT_EQ(std::count(row + 32, row + kStride, 99), 16);
    }
  }
}

TEST(SymbolBands, UnpackingToMiddlesIsUnpackingAndThenMoving) {
  constexpr int kTokens = 24;
  constexpr int kStride = 48;
  for (BandMode mode : kCodedModes) {
    std::vector<uint8_t> symbols(kTokens * SymbolsPerToken(mode));
    for (size_t i = 0; i < symbols.size(); ++i) {
      symbols[i] = static_cast<uint8_t>(37 * i + 11);
    }
    for (const int cell : {3, 9}) {
      for (const uint8_t shrink : {0, 1, 4, 127}) {
        std::vector<int8_t> expected(kTokens * kStride, 99);
        UnpackBand(mode, symbols.data(), kTokens, expected.data() + 16,
                   kStride);
        const std::vector<int8_t> shrinks(kBandComponents,
                                          static_cast<int8_t>(shrink));
        for (int token = 0; token < kTokens; ++token) {
          kernels::ToCellMiddles(shrinks.data(), cell, kBandComponents,
                                 expected.data() + token * kStride + 16);
        }
        for (const Isa isa : IsasUnderTest()) {
          std::vector<int8_t> values(expected.size(), 99);
          UnpackToMiddles(mode, symbols.data(), kTokens, cell, shrink,
                          values.data() + 16, kStride, isa);
          EXPECT_EQ(values, expected)
              << "mode " << static_cast<int>(mode) << " cell " << cell
              << " shrink " << int{shrink} << " isa " << static_cast<int>(isa);
        }
      }
    }
  }
}

TEST(SymbolBands, ABandThatIsNotCodedIsZero) {
  std::vector<int8_t> values(8 * 32, 99);
  UnpackBand(BandMode::kAbsent, nullptr, 8, values.data(), 32);
  for (int at = 0; at < 8 * 32; ++at) {
    EXPECT_EQ(values[at], at % 32 < 16 ? 0 : 99);
  }
}

}  // namespace
}  // namespace kdn::codec
