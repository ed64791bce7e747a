#include "delivery/rate_report.h"

#include <algorithm>

namespace kdn::delivery {
namespace {

absl::Duration PrefillTime(int64_t tokens, const DeliveryTarget& target) {
  if (!(target.prefill_tokens_per_second > 0)) return absl::ZeroDuration();
  return absl::Seconds(static_cast<double>(tokens) /
                       target.prefill_tokens_per_second);
}

uint64_t Micros(absl::Duration duration) {
  return static_cast<uint64_t>(
      std::max<int64_t>(absl::ToInt64Microseconds(duration), 0));
}

}  // namespace

Prediction Predict(const LevelPlan& plan, const DeliveryTarget& target,
                   absl::Duration decoding) {
  Prediction out;
  out.bytes = plan.bytes;
  out.chunks_loaded = plan.chunks_loaded;
  out.chunks_recomputed =
      static_cast<int>(plan.chunks.size()) - plan.chunks_loaded;
  if (plan.chunks_loaded == 0) {
    out.load = absl::ZeroDuration();
  } else if (target.bytes_per_second) {
    const absl::Duration arriving = absl::Seconds(
        static_cast<double>(plan.bytes) / *target.bytes_per_second);
    out.load = target.latency + std::max(arriving, decoding);
  }
  out.prefill = PrefillTime(plan.tokens_recomputed, target);
  out.prefill_all =
      PrefillTime(plan.tokens_recomputed + plan.tokens_loaded, target);
  return out;
}

bool DeliveryReport::late() const {
  return predicted.load && load > *predicted.load / kRateSafety;
}

bool DeliveryReport::slower_than_recompute() const {
  return predicted.prefill_all > absl::ZeroDuration() &&
         load + predicted.prefill > predicted.prefill_all;
}

void Count(const DeliveryReport& report, MetricValues& counters) {
  ++counters["rate.plans"];
  counters["rate.chunks_loaded"] +=
      static_cast<uint64_t>(report.predicted.chunks_loaded);
  counters["rate.chunks_recomputed"] +=
      static_cast<uint64_t>(report.predicted.chunks_recomputed);
  if (report.slower_than_recompute()) ++counters["rate.slower_than_recompute"];
  // A link whose last transfers carried no bytes gives no useful prediction.
  if (!report.predicted.load ||
      *report.predicted.load == absl::InfiniteDuration()) {
    ++counters["rate.plans_blind"];
    return;
  }
  if (report.late()) ++counters["rate.late"];
  counters["rate.bytes_predicted"] += report.predicted.bytes;
  counters["rate.bytes_actual"] += report.bytes;
  counters["rate.load_us_predicted"] += Micros(*report.predicted.load);
  counters["rate.load_us_actual"] += Micros(report.load);
}

}  // namespace kdn::delivery
