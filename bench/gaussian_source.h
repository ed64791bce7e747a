#ifndef KDN_BENCH_GAUSSIAN_SOURCE_H_
#define KDN_BENCH_GAUSSIAN_SOURCE_H_

#include <cstdint>
#include <vector>

#include "bench/kv_tensor.h"

namespace kdn::bench {

// Synthetic KV whose rate-distortion function is known. Every row is an
// independent Gaussian vector; its covariance has the eigenvalues exp(-k / tau)
// and a random orthonormal basis. K has no RoPE.
class GaussianSource {
 public:
  GaussianSource(int head_dim, double tau, uint32_t seed);

  // Rows of one layer and one KV head, rounded to bf16.
  KvTensor Draw(int tokens);
  // Skips the rows of the next `draws` calls of Draw.
  void Skip(uint32_t draws) { seed_ += draws; }
  // The least bits per value for a mean squared error of `nmse` times the
  // variance, by reverse water-filling (Cover and Thomas, theorem 10.3.3).
  // REQUIRES: 0 < nmse < 1.
  double RateOf(double nmse) const;

 private:
  int head_dim_;
  uint32_t seed_;
  std::vector<double> variances_;  // of the components
  std::vector<float> basis_;       // [component][dim], orthonormal rows
};

// The mean squared error divided by the mean square of `exact`.
double NormalizedError(const KvTensor& exact, const KvTensor& decoded);

}  // namespace kdn::bench

#endif  // KDN_BENCH_GAUSSIAN_SOURCE_H_
