#include "bench/gaussian_source.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kv/check.h"
#include "kv/dtype.h"

namespace kdn::bench {

GaussianSource::GaussianSource(int head_dim, double tau, uint32_t seed)
    : head_dim_(head_dim), seed_(seed), variances_(head_dim) {
  for (int k = 0; k < head_dim; ++k) variances_[k] = std::exp(-k / tau);
  // Gram-Schmidt makes random rows orthonormal.
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> rows;
  while (rows.size() < static_cast<size_t>(head_dim)) {
    std::vector<double> row(head_dim);
    for (double& x : row) x = normal(random);
    for (const std::vector<double>& other : rows) {
      const double along =
          std::inner_product(row.begin(), row.end(), other.begin(), 0.0);
      for (int i = 0; i < head_dim; ++i) row[i] -= along * other[i];
    }
    const double length =
        std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
    for (double& x : row) x /= length;
    basis_.insert(basis_.end(), row.begin(), row.end());
    rows.push_back(std::move(row));
  }
}

KvTensor GaussianSource::Draw(int tokens) {
  KvTensor kv({1, 1, tokens, head_dim_, Dtype::kBf16});
  std::mt19937 random(++seed_);
  std::normal_distribution<float> normal;
  for (size_t row = 0; row < kv.size() / head_dim_; ++row) {
    float* out = kv.values().data() + row * head_dim_;
    for (int k = 0; k < head_dim_; ++k) {
      const float y =
          normal(random) * static_cast<float>(std::sqrt(variances_[k]));
      for (int i = 0; i < head_dim_; ++i) {
        out[i] += y * basis_[static_cast<size_t>(k) * head_dim_ + i];
      }
    }
    for (int i = 0; i < head_dim_; ++i) {
      out[i] = Bf16ToFloat(FloatToBf16(out[i]));
    }
  }
  return kv;
}

double GaussianSource::RateOf(double nmse) const {
  KDN_CHECK(nmse > 0 && nmse < 1, "the error is between 0 and the variance");
  const double total =
      std::accumulate(variances_.begin(), variances_.end(), 0.0);
  double low = 0;
  double high = variances_.front();
  for (int i = 0; i < 100; ++i) {
    const double water = (low + high) / 2;
    double error = 0;
    for (double variance : variances_) error += std::min(variance, water);
    (error < nmse * total ? low : high) = water;
  }
  double bits = 0;
  for (double variance : variances_) {
    bits += std::max(0.0, 0.5 * std::log2(variance / low));
  }
  return bits / head_dim_;
}

double NormalizedError(const KvTensor& exact, const KvTensor& decoded) {
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double x = exact.values()[i];
    const double difference = decoded.values()[i] - x;
    error += difference * difference;
    power += x * x;
  }
  return error / power;
}

}  // namespace kdn::bench
