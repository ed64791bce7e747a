#ifndef KDN_DELIVERY_DECODE_RATES_H_
#define KDN_DELIVERY_DECODE_RATES_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"
#include "kv/level.h"

namespace kdn::delivery {

// Bytes of KV in the engine's dtype that all workers of a node decode a second,
// by Level. 0: unknown.
using DecodeRates = std::array<double, kLevelCount>;

// The levels that take longer to decode than the engine takes to compute the
// same KV, of `token_bytes` a token; decoding is believed to run at kRateSafety
// of its rate. A level of unknown rate is not among them, nor is any when the
// engine's rate is unknown (0). Pure.
LevelSet SlowerThanPrefill(const DecodeRates& rates, uint64_t token_bytes,
                           double prefill_tokens_per_second);

// What decoding takes on a node, learnt from layers that were decoded: the
// whole node's rate, as for a retrieve that has its workers, and chunks enough
// to keep them busy, to itself. Pure; thread-compatible.
class DecodeRateEstimate {
 public:
  // The last ones speak, so much work of one worker at a level: a layer that
  // waited 100 ms for its CPU moves the rate by a tenth.
  static constexpr absl::Duration kWindow = absl::Seconds(1);
  // Fewer say nothing: the first meet cold caches.
  static constexpr int kLayersMin = 32;
  // A level that is always recomputed would never be measured again: then it is
  // unknown, and tried.
  static constexpr absl::Duration kForgotten = absl::Seconds(10);

  // REQUIRES: workers >= 1.
  explicit DecodeRateEstimate(int workers) : workers_(workers) {}

  // One worker decoded one layer, of so many bytes of KV, until `now`. Ignored
  // when it took no time: the clock was set back.
  void OnLayer(Level level, uint64_t kv_bytes, absl::Duration took,
               absl::Time now);
  DecodeRates RatesAt(absl::Time now) const;

 private:
  struct Sum {
    double bytes = 0;
    double seconds = 0;
    int layers = 0;  // no more than kLayersMin are counted
    absl::Time last = absl::InfinitePast();
  };
  int workers_;
  std::array<Sum, kLevelCount> sums_;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_DECODE_RATES_H_
