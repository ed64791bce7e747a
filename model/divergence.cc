#include "model/divergence.h"

#include <algorithm>
#include <cmath>

#include "kv/check.h"

namespace kdn::model {
namespace {

double LogSum(absl::Span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

}  // namespace

double Divergence(absl::Span<const float> exact,
                  absl::Span<const float> other) {
  KDN_CHECK(exact.size() == other.size(), "both rows have the same vocabulary");
  const double exact_sum = LogSum(exact);
  const double other_sum = LogSum(other);
  double divergence = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double log_p = exact[i] - exact_sum;
    divergence += std::exp(log_p) * (log_p - (other[i] - other_sum));
  }
  return std::max(divergence, 0.0);  // rounding may make the sum negative
}

double LogProbability(absl::Span<const float> logits, int32_t token) {
  return logits[token] - LogSum(logits);
}

double MeanDivergence(absl::Span<const float> exact,
                      absl::Span<const float> other, size_t vocab) {
  double sum = 0;
  for (size_t at = 0; at < exact.size(); at += vocab) {
    sum += Divergence(exact.subspan(at, vocab), other.subspan(at, vocab));
  }
  return sum * static_cast<double>(vocab) / static_cast<double>(exact.size());
}

}  // namespace kdn::model
