#include <algorithm>

#include "absl/strings/str_cat.h"
#include "codec/entropy/rans.h"
#include "codec/entropy/rans_kernels.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// Whether adding 1 to frequency f_a shortens the code more than adding 1 to
// f_b. It shortens the code by count * log2(1 + 1 / f), which is
// count * 2 / (2f + 1) up to a constant factor and a relative error of
// 1 / (12 f^2).
bool GainsMore(uint64_t count_a, uint64_t f_a, uint64_t count_b, uint64_t f_b) {
  return count_a * (2 * f_b + 1) > count_b * (2 * f_a + 1);
}

void RaiseOne(absl::Span<const uint32_t> counts,
              std::array<uint16_t, kRansSymbols>* frequencies) {
  size_t best = 0;
  for (size_t s = 1; s < kRansSymbols; ++s) {
    if (GainsMore(counts[s], (*frequencies)[s], counts[best],
                  (*frequencies)[best])) {
      best = s;
    }
  }
  ++(*frequencies)[best];
}

// Takes 1 from the frequency where that lengthens the code least.
void LowerOne(absl::Span<const uint32_t> counts,
              std::array<uint16_t, kRansSymbols>* frequencies) {
  size_t best = kRansSymbols;
  for (size_t s = 0; s < kRansSymbols; ++s) {
    if ((*frequencies)[s] <= 1) continue;
    if (best == kRansSymbols ||
        GainsMore(counts[best], (*frequencies)[best] - 1, counts[s],
                  (*frequencies)[s] - 1)) {
      best = s;
    }
  }
  --(*frequencies)[best];
}

}  // namespace

std::array<uint16_t, kRansSymbols> NormaliseCounts(
    absl::Span<const uint32_t> counts) {
  KDN_CHECK(counts.size() == kRansSymbols, "a count for every symbol");
  uint64_t total = 0;
  for (uint32_t count : counts) total += count;
  KDN_CHECK(total > 0, "no symbol to code");
  std::array<uint16_t, kRansSymbols> frequencies{};
  uint32_t sum = 0;
  for (size_t s = 0; s < kRansSymbols; ++s) {
    if (counts[s] == 0) continue;
    const uint64_t share = uint64_t{counts[s]} * kRansTotal / total;
    frequencies[s] = static_cast<uint16_t>(std::max<uint64_t>(share, 1));
    sum += frequencies[s];
  }
  for (; sum < kRansTotal; ++sum) RaiseOne(counts, &frequencies);
  for (; sum > kRansTotal; --sum) LowerOne(counts, &frequencies);
  return frequencies;
}

absl::StatusOr<RansTable> RansTable::Create(
    absl::Span<const uint16_t> frequencies) {
  if (frequencies.size() != kRansSymbols) {
    return absl::InvalidArgumentError(
        absl::StrCat(frequencies.size(), " frequencies, not 256"));
  }
  uint32_t sum = 0;
  for (uint16_t frequency : frequencies) sum += frequency;
  if (sum != kRansTotal) {
    return absl::InvalidArgumentError(
        absl::StrCat("frequencies sum to ", sum, ", not ", kRansTotal));
  }
  RansTable table;
  uint32_t start = 0;
  for (uint32_t s = 0; s < kRansSymbols; ++s) {
    const uint32_t f = frequencies[s];
    table.encode_[s] = start | f << 16;
    table.reciprocals_[s] =
        f == 0 ? 0 : ((uint64_t{1} << rans::kReciprocalBits) + f - 1) / f;
    uint32_t* const entries = table.decode_.data() + start;
    for (uint32_t i = 0; i < f; ++i) entries[i] = s | (f - 1) << 8 | i << 20;
    start += f;
  }
  return table;
}

}  // namespace kdn::codec
