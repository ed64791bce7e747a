#ifndef KDN_DELIVERY_DECODE_RATES_H_
#define KDN_DELIVERY_DECODE_RATES_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"
#include "kv/level.h"

namespace kdn::delivery {

// By Level: how many bytes of KV, in the engine's dtype, all workers of a node
// together decode per second. 0: unknown.
using DecodeRates = std::array<double, kLevelCount>;

// The levels at which decoding takes longer than the engine takes to compute
// the same KV. A token has `token_bytes` of KV. Decoding is assumed to run at
// kRateSafety of its rate. A level of unknown rate is left out; the set is
// empty when the engine's rate is unknown (0). Pure.
LevelSet SlowerThanPrefill(const DecodeRates& rates, uint64_t token_bytes,
                           double prefill_tokens_per_second);

// Estimates a node's decode rates from the layers that it has decoded. A rate
// is that of all workers together. A retrieve gets this rate if it has the
// workers to itself and has enough chunks to keep them busy. Pure;
// thread-compatible.
class DecodeRateEstimate {
 public:
  // The rate of a level comes from about this much recent work of one worker.
  // A layer that waited 100 ms for its CPU changes the rate by a tenth.
  static constexpr absl::Duration kWindow = absl::Seconds(1);
  // The rate is unknown until so many layers were decoded: the first layers are
  // slower, because the caches are cold.
  static constexpr int kLayersMin = 32;
  // The rate is unknown again when no layer was decoded for so long. Otherwise
  // a level that was too slow once would never be tried again.
  static constexpr absl::Duration kForgotten = absl::Seconds(10);

  // REQUIRES: workers >= 1.
  explicit DecodeRateEstimate(int workers) : workers_(workers) {}

  // One worker decoded one layer with `kv_bytes` of KV and was done at `now`.
  // Ignored when `took` is not positive: the clock was set back.
  void OnLayer(Level level, uint64_t kv_bytes, absl::Duration took,
               absl::Time now);
  DecodeRates RatesAt(absl::Time now) const;

 private:
  struct Sum {
    double bytes = 0;
    double seconds = 0;
    int layers = 0;  // counted up to kLayersMin
    absl::Time last = absl::InfinitePast();
  };
  int workers_;
  std::array<Sum, kLevelCount> sums_;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_DECODE_RATES_H_
