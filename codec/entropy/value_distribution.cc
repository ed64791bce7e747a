#include "codec/entropy/value_distribution.h"

#include <algorithm>
#include <numeric>

#include "codec/transform/symbol_bands.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// Probabilities are multiples of 2^-30.
constexpr int kOneBits = 30;
constexpr uint64_t kOne = uint64_t{1} << kOneBits;
constexpr uint64_t kRarest = kOne >> 17;

ValueCounts Normalised(const ValueCounts& counts) {
  // Fewer than 34 bits, so that the product with kOne fits into 64.
  uint64_t total = 0;
  for (const uint64_t count : counts) total += count;
  int shift = 0;
  while (total >> shift >= uint64_t{1} << 33) ++shift;
  ValueCounts result;
  const uint64_t scaled = std::max<uint64_t>(total >> shift, 1);
  for (size_t i = 0; i < counts.size(); ++i) {
    result[i] = (counts[i] >> shift) * kOne / scaled;
  }
  return result;
}

uint64_t Probability(const ValueCounts& p, BandMode mode, uint8_t symbol) {
  int8_t values[kBandComponents];
  uint8_t symbols[kBandComponents] = {symbol};
  UnpackBand(mode, symbols, 1, values, kBandComponents);
  uint64_t product = kOne;
  for (int i = 0; i < ValuesPerSymbol(mode); ++i) {
    if (std::abs(values[i]) > LargestValue(mode)) return 0;
    product = product * p[values[i] + kValueMax] >> kOneBits;
  }
  return product;
}

}  // namespace

ValueCounts CodedCounts(const ValueCounts& finest, int step, bool before) {
  ValueCounts coded{};
  for (int value = -kValueMax; value <= kValueMax; ++value) {
    const int now = AtStep(value, step);
    const int out = before ? Refinement(now, Coarser(now)) : now;
    coded[out + kValueMax] += finest[value + kValueMax];
  }
  return coded;
}

FormatCoder::Table SymbolTable(const ValueCounts& coded, BandMode mode) {
  KDN_CHECK(mode != BandMode::kAbsent, "a band that is not coded has no table");
  const ValueCounts p = Normalised(coded);
  std::array<uint32_t, FormatCoder::kSymbols> counts;
  for (size_t symbol = 0; symbol < FormatCoder::kSymbols; ++symbol) {
    const uint64_t probability =
        Probability(p, mode, static_cast<uint8_t>(symbol));
    counts[symbol] =
        probability < kRarest ? 0 : static_cast<uint32_t>(probability);
  }
  uint32_t& zero = counts[ZeroSymbol(mode)];
  zero = std::max<uint32_t>(zero, kRarest);
  absl::StatusOr<FormatCoder::Table> table =
      FormatCoder::Table::Create(FormatCoder::Normalise(counts));
  KDN_CHECK(table.ok(), "normalised counts are frequencies");
  return *std::move(table);
}

}  // namespace kdn::codec
