#include "delivery/decode_rates.h"

#include "delivery/rate_control.h"

namespace kdn::delivery {

LevelSet FasterThanPrefill(LevelSet levels, const DecodeRates& rates,
                           uint64_t token_bytes,
                           double prefill_tokens_per_second) {
  if (!(prefill_tokens_per_second > 0)) return levels;
  const double needed =
      prefill_tokens_per_second * static_cast<double>(token_bytes);
  LevelSet fast;
  for (const Level level : kLevelsByQuality) {
    const double rate = rates[static_cast<size_t>(level)];
    const bool slow = rate > 0 && rate * kRateSafety < needed;
    if (levels.Has(level) && !slow) fast = fast.With(level);
  }
  return fast;
}

void DecodeBook::OnLayer(Level level, uint64_t kv_bytes, absl::Duration took,
                         absl::Time now) {
  absl::MutexLock lock(&mutex_);
  Sum& sum = sums_[static_cast<size_t>(level)];
  if (now - sum.last > kForgotten) sum = {};
  sum.bytes += static_cast<double>(kv_bytes);
  sum.seconds += absl::ToDoubleSeconds(took);
  sum.last = now;
  if (sum.bytes > static_cast<double>(kWindowBytes)) {
    sum.bytes /= 2;
    sum.seconds /= 2;
  }
}

DecodeRates DecodeBook::RatesAt(absl::Time now) const {
  absl::MutexLock lock(&mutex_);
  DecodeRates rates{};
  for (size_t level = 0; level < rates.size(); ++level) {
    const Sum& sum = sums_[level];
    if (now - sum.last > kForgotten || !(sum.seconds > 0)) continue;
    rates[level] = workers_ * sum.bytes / sum.seconds;
  }
  return rates;
}

}  // namespace kdn::delivery
