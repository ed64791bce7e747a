#include "bench/blend_statistics.h"

#include <cmath>
#include <numeric>

#include "kv/check.h"

namespace kdn::bench {
namespace {

double Mean(absl::Span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) /
         static_cast<double>(values.size());
}

// Half of the interval of the mean of values whose mean is `mean`.
std::optional<double> HalfOf95(absl::Span<const double> values, double mean) {
  const auto count = static_cast<double>(values.size());
  if (values.size() < 2) return std::nullopt;
  double squares = 0;
  for (const double x : values) squares += (x - mean) * (x - mean);
  return 1.96 * std::sqrt(squares / (count - 1) / count);
}

std::vector<double> Minus(absl::Span<const double> a,
                          absl::Span<const double> b) {
  std::vector<double> difference;
  for (size_t i = 0; i < a.size(); ++i) difference.push_back(a[i] - b[i]);
  return difference;
}

}  // namespace

Estimate MeanOf(absl::Span<const double> of_contexts) {
  const double mean = Mean(of_contexts);
  return {mean, HalfOf95(of_contexts, mean)};
}

Estimate RatioOf(absl::Span<const double> above,
                 absl::Span<const double> below) {
  KDN_CHECK(above.size() == below.size(), "two figures of each context");
  const double ratio = Mean(above) / Mean(below);
  std::vector<double> residuals;
  for (size_t i = 0; i < above.size(); ++i) {
    residuals.push_back((above[i] - ratio * below[i]) / Mean(below));
  }
  return {ratio, HalfOf95(residuals, 0)};
}

void BlendSample::Add(absl::Span<const BlendScore> scores,
                      absl::Span<const BlendScore> full) {
  double right = 0;
  double kl = 0;
  double flops = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    right += scores[i].right ? 1 : 0;
    kl += scores[i].kl;
    flops += scores[i].flops / full[i].flops;
    // A NaN stays, because no number is larger.
    if (std::isnan(scores[i].kl) || scores[i].kl > most_kl_) {
      most_kl_ = scores[i].kl;
    }
  }
  const auto count = static_cast<double>(scores.size());
  right_.push_back(right / count);
  kl_.push_back(kl / count);
  flops_.push_back(flops / count);
}

Estimate BlendSample::RightRecovered(const BlendSample& reuse,
                                     const BlendSample& full) const {
  return RatioOf(Minus(right_, reuse.right_), Minus(full.right_, reuse.right_));
}

Estimate BlendSample::KlRecovered(const BlendSample& reuse) const {
  return RatioOf(Minus(reuse.kl_, kl_), reuse.kl_);
}

}  // namespace kdn::bench
