#include "delivery/link_rate.h"

#include <algorithm>
#include <cmath>

namespace kdn::delivery {
namespace {

constexpr double kPeakSinks = 0.1;

}  // namespace

void LinkRate::OnTransfer(uint64_t bytes, absl::Duration took, absl::Time now) {
  if (bytes < kSampleBytes && took < kSampleTime) return;
  const Sample sample{static_cast<double>(bytes), absl::ToDoubleSeconds(took)};
  // A transfer faster than the clock's tick, or of infinite time, has no rate.
  if (!(sample.seconds > 0) || !std::isfinite(sample.seconds)) return;
  if (now - last_ > kForgotten) *this = LinkRate();
  if (recent_.size() < kRecent) {
    recent_.push_back(sample);
  } else {
    recent_[next_] = sample;
    next_ = (next_ + 1) % kRecent;
  }
  latest_ = sample.bytes / sample.seconds;
  average_ =
      recent_.size() == 1 ? latest_ : average_ + kWeight * (latest_ - average_);
  peak_ = std::max(average_, peak_ + kPeakSinks * (average_ - peak_));
  last_ = std::max(last_, now);
}

std::optional<double> LinkRate::BytesPerSecond(absl::Time now) const {
  const absl::Duration age = now - last_;
  if (recent_.empty() || age > kForgotten) return std::nullopt;
  const double measured = std::min({average_, RecentMean(), latest_});
  if (age <= kFresh) return measured;
  const double doublings = absl::FDivDuration(age - kFresh, kDoubling);
  const double hoped = std::max(measured, kLeast) * std::exp2(doublings);
  return std::max(measured, std::min(hoped, std::max(peak_, kLeast)));
}

double LinkRate::RecentMean() const {
  double bytes = 0;
  double seconds = 0;
  for (const Sample& sample : recent_) {
    bytes += sample.bytes;
    seconds += sample.seconds;
  }
  return bytes / seconds;
}

}  // namespace kdn::delivery
