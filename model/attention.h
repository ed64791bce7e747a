#ifndef KDN_MODEL_ATTENTION_H_
#define KDN_MODEL_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace kdn::model {

// Attention over the tokens of one KV head, in fp32. The sums run over
// dimensions and tokens in a fixed order, so that equal tokens give equal bits
// however many tokens a call has. Thread-compatible.
class HeadAttention {
 public:
  // `keys` and `values` are [slots][dim].
  HeadAttention(absl::Span<const float> keys, std::vector<float> values,
                int dim);

  // The tokens that one query may attend to.
  using Allowed = std::vector<uint8_t>;  // [slots], 0 or 1

  // Writes softmax(query K^T / sqrt(dim)) V over the allowed tokens into
  // `result`; zeros if no token is allowed. Both have `dim` values.
  void Attend(absl::Span<const float> query, const Allowed& allowed,
              absl::Span<float> result);

 private:
  // Turns weights_ of the first `slots` tokens from scores into exponentials,
  // and returns their sum.
  float Exponentials(const Allowed& allowed, int slots);
  void AddValues(int slots, float* result) const;

  int dim_;
  int slots_;
  std::vector<float> keys_;    // [dim][slots]: the loop over slots is the inner
  std::vector<float> values_;  // [slots][dim]
  std::vector<float> weights_;  // [slots], of the present query
};

}  // namespace kdn::model

#endif  // KDN_MODEL_ATTENTION_H_
