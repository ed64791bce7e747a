#ifndef KDN_MODEL_DIVERGENCE_H_
#define KDN_MODEL_DIVERGENCE_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace kdn::model {

// KL(exact || other) in nats: the Kullback-Leibler divergence between the
// distributions of the next token under the two sets of logits.
// REQUIRES: equal sizes.
double Divergence(absl::Span<const float> exact, absl::Span<const float> other);

// The logarithm of the probability that the logits give to a token.
// REQUIRES: the token is in the vocabulary.
double LogProbability(absl::Span<const float> logits, int32_t token);

// The mean Divergence over rows of `vocab` logits.
double MeanDivergence(absl::Span<const float> exact,
                      absl::Span<const float> other, size_t vocab);

}  // namespace kdn::model

#endif  // KDN_MODEL_DIVERGENCE_H_
