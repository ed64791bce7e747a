#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <vector>

#include "codec/entropy/rans.h"

namespace kdn::codec {
namespace {

TEST(NormaliseCounts, KeepsEverySymbolAndSumsToTheTotal) {
  std::mt19937 rng(1);
  for (int round = 0; round < 200; ++round) {
    std::array<uint32_t, kRansSymbols> counts{};
    const size_t symbols = 1 + rng() % kRansSymbols;
    for (size_t s = 0; s < symbols; ++s) counts[s] = rng() >> rng() % 32;
    counts[symbols / 2] |= 1;
    const auto frequencies = NormaliseCounts(counts);
    EXPECT_EQ(std::accumulate(frequencies.begin(), frequencies.end(), 0u),
              kRansTotal);
    for (size_t s = 0; s < kRansSymbols; ++s) {
      EXPECT_EQ(frequencies[s] > 0, counts[s] > 0) << "seed 1 round " << round;
    }
  }
}

TEST(NormaliseCounts, IsExactWhereItCanBe) {
  std::array<uint32_t, kRansSymbols> counts{};
  counts[3] = 3000;
  counts[200] = 1000;
  const auto frequencies = NormaliseCounts(counts);
  EXPECT_EQ(frequencies[3], 3072);
  EXPECT_EQ(frequencies[200], 1024);
}

TEST(NormaliseCounts, TakesFromTheLargestWhenRareSymbolsAreMany) {
  std::array<uint32_t, kRansSymbols> counts;
  counts.fill(1);
  counts[9] = 4000000000u;
  const auto frequencies = NormaliseCounts(counts);
  EXPECT_EQ(frequencies[9], kRansTotal - 255);
}

TEST(RansTable, RefusesFrequenciesThatAreNoDistribution) {
  std::vector<uint16_t> frequencies(kRansSymbols, 16);
  EXPECT_TRUE(RansTable::Create(frequencies).ok());
  ++frequencies[0];
  EXPECT_TRUE(absl::IsInvalidArgument(RansTable::Create(frequencies).status()));
  // A 16-bit sum would wrap around to 4096.
  std::fill(frequencies.begin(), frequencies.end(), 0x1010);
  EXPECT_TRUE(absl::IsInvalidArgument(RansTable::Create(frequencies).status()));
  frequencies.assign(kRansSymbols - 1, 0);
  frequencies[0] = kRansTotal;
  EXPECT_TRUE(absl::IsInvalidArgument(RansTable::Create(frequencies).status()));
}

TEST(RansTable, EntriesCoverEverySlot) {
  std::array<uint32_t, kRansSymbols> counts{};
  for (uint32_t s = 40; s < 90; ++s) counts[s] = s * s * s % 1000;
  const RansTable table = *RansTable::Create(NormaliseCounts(counts));
  for (uint32_t slot = 0; slot < kRansTotal; ++slot) {
    const uint32_t entry = table.decode_entries()[slot];
    const uint32_t encode = table.encode_entries()[entry & 0xff];
    EXPECT_EQ((entry >> 8 & 0xfff) + 1, encode >> 16);
    EXPECT_EQ(slot - (encode & 0xffff), entry >> 20);
    EXPECT_LT(entry >> 20, encode >> 16);
  }
}

}  // namespace
}  // namespace kdn::codec
