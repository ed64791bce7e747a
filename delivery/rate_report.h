#ifndef KDN_DELIVERY_RATE_REPORT_H_
#define KDN_DELIVERY_RATE_REPORT_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "delivery/rate_control.h"
#include "kv/metric_values.h"

// Rate control says what it predicted and what happened. Values; no clock.
namespace kdn::delivery {

// What a plan promises.
struct Prediction {
  uint64_t bytes = 0;
  int chunks_loaded = 0;
  int chunks_recomputed = 0;
  // Unset while the link's rate is unknown. At the whole rate, so that on
  // average it comes true; only decisions leave kRateSafety room. Decoding goes
  // on while the rest arrives: the slower of the two counts.
  std::optional<absl::Duration> load;
  // Of the tokens not loaded, and of all tokens; zero when the engine cannot
  // say.
  absl::Duration prefill;
  absl::Duration prefill_all;

  // One after the other, as in the worst case. REQUIRES: load is set.
  absl::Duration total() const { return *load + prefill; }
};

// `decoding`: what is loaded takes the workers so long; zero: nobody knows.
Prediction Predict(const LevelPlan& plan, const DeliveryTarget& target,
                   absl::Duration decoding = absl::ZeroDuration());

// What was promised and what happened, for people who ask whether it pays.
struct DeliveryReport {
  Prediction predicted;
  uint64_t bytes = 0;
  absl::Duration load;  // from the first byte due to the last layer decoded

  // It took longer than even the margin allows for.
  bool late() const;
  // The engine would have been faster on its own.
  bool slower_than_recompute() const;
};

// Adds the report to the metrics of kv/metric_table.h that begin with "rate.".
// Predicted and actual sums are of the same deliveries: those with a
// prediction.
void Count(const DeliveryReport& report, MetricValues& counters);

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_RATE_REPORT_H_
