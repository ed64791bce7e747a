#ifndef KDN_BENCH_BLEND_STATISTICS_H_
#define KDN_BENCH_BLEND_STATISTICS_H_

#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace kdn::bench {

// How far the predictions behind a composition are from those of a full
// prefill.
struct BlendScore {
  double kl = 0;       // in nats, mean over the predictions
  bool right = false;  // of a question: the likeliest candidate is the answer
  double flops = 0;    // of all that ran when the query was known
};

// A mean over contexts and half of its 95 % confidence interval, by the normal
// approximation. The predictions behind one context depend on each other, so
// contexts are the samples. One context has no interval.
struct Estimate {
  double mean = 0;
  std::optional<double> half;
};
Estimate MeanOf(absl::Span<const double> of_contexts);
// The ratio of two means and its interval, linearised (Cochran, Sampling
// Techniques, section 2.11). REQUIRES: equal sizes; the mean of `below` is not
// zero.
Estimate RatioOf(absl::Span<const double> above,
                 absl::Span<const double> below);

// What one way of composing scored, context by context.
class BlendSample {
 public:
  // The scores of a context's items, and those of a full prefill.
  void Add(absl::Span<const BlendScore> scores,
           absl::Span<const BlendScore> full);

  Estimate right() const { return MeanOf(right_); }
  Estimate kl() const { return MeanOf(kl_); }
  // Over the FLOPs of a full prefill.
  Estimate flops() const { return MeanOf(flops_); }
  // The largest divergence of an item; NaN if one is NaN.
  double most_kl() const { return most_kl_; }
  // The shares of the gap between `reuse` and a full prefill that are closed.
  Estimate RightRecovered(const BlendSample& reuse,
                          const BlendSample& full) const;
  Estimate KlRecovered(const BlendSample& reuse) const;

 private:
  std::vector<double> right_;
  std::vector<double> kl_;
  std::vector<double> flops_;
  double most_kl_ = 0;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_BLEND_STATISTICS_H_
