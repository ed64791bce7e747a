#include "delivery/decode_rates.h"

#include <algorithm>

#include "delivery/rate_control.h"

namespace kdn::delivery {

LevelSet SlowerThanPrefill(const DecodeRates& rates, uint64_t token_bytes,
                           double prefill_tokens_per_second) {
  LevelSet slow;
  if (!(prefill_tokens_per_second > 0)) return slow;
  const double needed =
      prefill_tokens_per_second * static_cast<double>(token_bytes);
  for (const Level level : kLevelsByQuality) {
    const double rate = rates[static_cast<size_t>(level)];
    if (rate > 0 && rate * kRateSafety < needed) slow = slow.With(level);
  }
  return slow;
}

void DecodeRateEstimate::OnLayer(Level level, uint64_t kv_bytes,
                                 absl::Duration took, absl::Time now) {
  if (took <= absl::ZeroDuration()) return;
  Sum& sum = sums_[static_cast<size_t>(level)];
  if (now - sum.last > kForgotten) sum = {};
  sum.bytes += static_cast<double>(kv_bytes);
  sum.seconds += absl::ToDoubleSeconds(took);
  sum.layers = std::min(sum.layers + 1, kLayersMin);
  sum.last = now;
  if (sum.seconds > absl::ToDoubleSeconds(kWindow)) {
    sum.bytes /= 2;
    sum.seconds /= 2;
  }
}

DecodeRates DecodeRateEstimate::RatesAt(absl::Time now) const {
  DecodeRates rates{};
  for (size_t level = 0; level < rates.size(); ++level) {
    const Sum& sum = sums_[level];
    if (now - sum.last > kForgotten || sum.layers < kLayersMin) continue;
    rates[level] = workers_ * sum.bytes / sum.seconds;
  }
  return rates;
}

}  // namespace kdn::delivery
