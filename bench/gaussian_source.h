#ifndef KDN_BENCH_GAUSSIAN_SOURCE_H_
#define KDN_BENCH_GAUSSIAN_SOURCE_H_

#include <cstdint>
#include <vector>

#include "bench/kv_tensor.h"

namespace kdn::bench {

// KV of a known rate-distortion function: every row an independent Gaussian
// vector whose covariance has eigenvalues exp(-k / tau), turned by one random
// rotation per head. K is not rotated by its position.
class GaussianSource {
 public:
  GaussianSource(int head_dim, double tau, uint32_t seed);

  // One layer, one KV head, bf16.
  KvTensor Draw(int tokens);
  // Later draws are others: as if so many had been made before.
  void Skip(uint32_t draws) { seed_ += draws; }
  // Fewest bits a value for a mean squared error of `nmse` times the variance:
  // reverse water-filling (Cover and Thomas, theorem 10.3.3). REQUIRES:
  // 0 < nmse < 1.
  double RateOf(double nmse) const;

 private:
  int head_dim_;
  uint32_t seed_;
  std::vector<double> variances_;  // of the components
  std::vector<float> basis_;       // [component][dim], orthonormal rows
};

// Mean squared error over variance.
double NormalizedError(const KvTensor& exact, const KvTensor& decoded);

}  // namespace kdn::bench

#endif  // KDN_BENCH_GAUSSIAN_SOURCE_H_
