#ifndef KDN_DELIVERY_RATE_REPORT_H_
#define KDN_DELIVERY_RATE_REPORT_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "delivery/rate_control.h"
#include "kv/metric_values.h"

// What rate control predicted and what happened. Values; no clock.
namespace kdn::delivery {

// The prediction of a plan.
struct Prediction {
  uint64_t bytes = 0;
  int chunks_loaded = 0;
  int chunks_recomputed = 0;
  // The time to load the chunks; unset: the link's rate is unknown. It is
  // predicted at the whole rate, so that it is right on average; only decisions
  // apply kRateSafety. Decoding and arriving overlap, so the slower one counts.
  std::optional<absl::Duration> load;
  // The time to prefill the tokens that are not loaded, and all tokens. Zero:
  // the engine's rate is unknown.
  absl::Duration prefill;
  absl::Duration prefill_all;

  // Loading and prefilling one after the other: the worst case. REQUIRES: load
  // is set.
  absl::Duration total() const { return *load + prefill; }
};

// `decoding`: how long the workers decode the loaded chunks; zero: unknown.
Prediction Predict(const LevelPlan& plan, const DeliveryTarget& target,
                   absl::Duration decoding = absl::ZeroDuration());

// What was predicted and what happened, for people who ask whether rate control
// pays.
struct DeliveryReport {
  Prediction predicted;
  uint64_t bytes = 0;
  // From the time when the first byte was due until the last layer was decoded.
  absl::Duration load;

  // True when loading took longer than predicted at kRateSafety of the rate.
  bool late() const;
  // True when the engine would have been faster alone.
  bool slower_than_recompute() const;
};

// Adds the report to the metrics of kv/metric_table.h that begin with "rate.".
// The predicted and the actual sums count the same deliveries: those with a
// prediction.
void Count(const DeliveryReport& report, MetricValues& counters);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_RATE_REPORT_H_
