#ifndef KDN_MODEL_DIVERGENCE_H_
#define KDN_MODEL_DIVERGENCE_H_

#include "absl/types/span.h"

namespace kdn::model {

// The Kullback-Leibler divergence in nats of the next token's distribution
// under the logits `other` from that under `exact`. REQUIRES: equal sizes.
double Divergence(absl::Span<const float> exact, absl::Span<const float> other);

// The mean over rows of `vocab` logits.
double MeanDivergence(absl::Span<const float> exact,
                      absl::Span<const float> other, size_t vocab);

}  // namespace kdn::model

#endif  // KDN_MODEL_DIVERGENCE_H_
