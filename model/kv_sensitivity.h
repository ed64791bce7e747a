#ifndef KDN_MODEL_KV_SENSITIVITY_H_
#define KDN_MODEL_KV_SENSITIVITY_H_

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/kv_cache.h"
#include "model/llama.h"

namespace kdn::model {

// How much an error in the KV of a context changes what a model says behind it.
//
// A small error e in the KV moves the distribution of the next token by a
// divergence of e' F e / 2 nats, where F is the Fisher information: the mean of
// g g' over tokens that the model itself would say, with g the gradient of the
// token's log-probability with respect to the KV (Amari, Information Geometry
// and Its Applications, section 1.3). This class measures the mean of g^2 for
// each layer, K (before RoPE) or V, and KV head, by backpropagation to the KV.
//
// It computes in fp32, apart from the weight matrices, which multiply as in
// other passes. Thread-compatible.
class KvSensitivity {
 public:
  // The model must outlive this object.
  explicit KvSensitivity(const Llama& llama);

  // Adds the tokens behind a context, whose KV `cache` has, at positions 0, 1,
  // ... Draws what the model would say `draws` times. Mean() leaves out the
  // first token: an attention sink, whose KV is kept exact. Returns the sum of
  // g^2 over the values of each token's K and V, [layer][KV head][token].
  // INVALID_ARGUMENT for no tokens behind, or fewer than two before.
  absl::StatusOr<std::vector<double>> Add(const KvCache& cache,
                                          absl::Span<const int32_t> behind,
                                          int draws, std::mt19937& random);

  // The mean of g^2 over the values of a head's K or V and over the tokens
  // behind, [layer][K|V][KV head]. REQUIRES: Add has been called.
  std::vector<double> Mean() const;

 private:
  class Pass;

  const Llama& llama_;
  std::vector<double> sums_;
  double draws_ = 0;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_KV_SENSITIVITY_H_
