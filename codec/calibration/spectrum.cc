#include "codec/calibration/spectrum.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>

#include "codec/calibration/eigenpairs.h"
#include "codec/entropy/value_distribution.h"
#include "codec/transform/component_rounding.h"

namespace kdn::codec {
namespace {

// The finest quantiser reaches at least this many standard deviations of a
// component, in the class of tokens with the smallest steps. The step is made
// larger where the weighted step would reach less far.
constexpr double kDeviationsInRange = 7.0;
// The most bands of a stream that are wide.
constexpr int kWideBandsMax = 8;

// The entropy, in bits, of a normal variable of standard deviation `ratio` that
// is rounded to integers.
double EntropyOf(double ratio) {
  if (ratio > 8) return std::log2(ratio * std::sqrt(2 * M_PI * M_E));
  double entropy = 0;
  const auto below = [ratio](double x) {
    return 0.5 * std::erfc(-x / (ratio * std::sqrt(2.0)));
  };
  for (int i = 0; i <= 64; ++i) {
    const double p = below(i + 0.5) - below(i - 0.5);
    if (p < 1e-12) break;
    entropy -= (i == 0 ? 1 : 2) * p * std::log2(p);
  }
  return entropy;
}

Matrix Product(const Matrix& a, const Matrix& b, int dim) {
  Matrix product(a.size());
  for (int i = 0; i < dim; ++i) {
    for (int k = 0; k < dim; ++k) {
      const double x = a[static_cast<size_t>(i) * dim + k];
      if (x == 0) continue;
      for (int j = 0; j < dim; ++j) {
        product[static_cast<size_t>(i) * dim + j] +=
            x * b[static_cast<size_t>(k) * dim + j];
      }
    }
  }
  return product;
}

// Lengthens columns that would round to almost nothing. Their components get a
// larger step, but are not lost.
void KeepColumns(int dim, int components, std::vector<double>* matrix) {
  constexpr double kLeastEntry = 4;  // the least that a column's largest may be
  for (int c = 0; c < dim; ++c) {
    double largest = 0;
    for (int d = 0; d < dim; ++d) {
      largest = std::max(
          largest,
          std::fabs((*matrix)[static_cast<size_t>(d) * components + c]));
    }
    const double longer = kLeastEntry / largest;
    if (!(longer > 1) || !std::isfinite(longer)) continue;
    for (int d = 0; d < dim; ++d) {
      (*matrix)[static_cast<size_t>(d) * components + c] *= longer;
    }
  }
}

}  // namespace

void Whitening::PutHead(int begin, int head_dim, double weight,
                        absl::Span<const double> metric) {
  if (!metric.empty()) return PutMetric(begin, head_dim, weight, metric);
  for (int d = begin; d < begin + head_dim; ++d) {
    root[static_cast<size_t>(d) * dim_ + d] = std::sqrt(weight);
    inverse[static_cast<size_t>(d) * dim_ + d] = 1 / std::sqrt(weight);
  }
}

void Whitening::PutMetric(int begin, int head_dim, double weight,
                          absl::Span<const double> metric) {
  // The share of a metric that is equal in all directions: few queries say
  // little about a direction that they rarely have.
  constexpr double kEqualShare = 0.03;
  const Eigenpairs pairs = EigenpairsOf(metric, head_dim);
  const double mean =
      std::accumulate(pairs.values.begin(), pairs.values.end(), 0.0) / head_dim;
  for (int i = 0; i < head_dim; ++i) {
    const double share = mean > 0 ? std::max(pairs.values[i], 0.0) / mean : 1.0;
    const double length = std::sqrt(weight * (share + kEqualShare));
    for (int a = 0; a < head_dim; ++a) {
      for (int b = 0; b < head_dim; ++b) {
        const double outer =
            pairs.vectors[static_cast<size_t>(a) * head_dim + i] *
            pairs.vectors[static_cast<size_t>(b) * head_dim + i];
        const size_t at = static_cast<size_t>(begin + a) * dim_ + begin + b;
        root[at] += length * outer;
        inverse[at] += outer / length;
      }
    }
  }
}

Spectrum SpectrumOf(double tokens, const std::vector<double>& sum,
                    const Matrix& products, const Whitening& whitening) {
  const int dim = static_cast<int>(sum.size());
  Spectrum spectrum;
  for (const double x : sum) spectrum.mean.push_back(x / tokens);
  Matrix covariance(products.size());
  for (int a = 0; a < dim; ++a) {
    for (int b = 0; b <= a; ++b) {
      const size_t at = static_cast<size_t>(a) * dim + b;
      covariance[at] =
          products[at] / tokens - spectrum.mean[a] * spectrum.mean[b];
      covariance[static_cast<size_t>(b) * dim + a] = covariance[at];
    }
  }
  const Eigenpairs pairs = EigenpairsOf(
      Product(Product(whitening.root, covariance, dim), whitening.root, dim),
      dim);
  for (const double variance : pairs.values) {
    spectrum.deviations.push_back(std::sqrt(std::max(variance, 0.0)));
  }
  spectrum.basis = Product(whitening.inverse, pairs.vectors, dim);
  return spectrum;
}

double Quantiser::StepOf(const Spectrum& spectrum, int component) const {
  const int most = component < wide ? kWideMax : kValueMax;
  return std::max(step, Reach(spectrum, component) / most);
}

double Quantiser::Reach(const Spectrum& spectrum, int component) const {
  return std::ldexp(kDeviationsInRange * spectrum.deviations[component],
                    -least_exponent);
}

Quantiser QuantiserOf(const Spectrum& spectrum, double step,
                      int least_exponent) {
  Quantiser quantiser{.step = step, .least_exponent = least_exponent};
  const int dim = static_cast<int>(spectrum.deviations.size());
  int wide = 0;
  while (wide < dim && quantiser.Reach(spectrum, wide) > step * kValueMax) {
    ++wide;
  }
  const int bands = (dim + kBandComponents - 1) / kBandComponents;
  const int together = bands % 4 == 0 ? 4 : 1;
  const int most = std::min(bands, kWideBandsMax) / together * together;
  const int wanted = (wide + kBandComponents - 1) / kBandComponents;
  quantiser.wide =
      std::min((wanted + together - 1) / together * together, most) *
      kBandComponents;
  return quantiser;
}

double BaseBits(absl::Span<const Spectrum> spectra, double step) {
  double bits = 0;
  size_t components = 0;
  for (const Spectrum& spectrum : spectra) {
    for (const double deviation : spectrum.deviations) {
      bits += EntropyOf(deviation / (CellOf(0) * step));
    }
    components += spectrum.deviations.size();
  }
  return bits / static_cast<double>(components);
}

StoredTransform TransformOf(const Spectrum& spectrum,
                            const Quantiser& quantiser,
                            absl::Span<const int> exponents, int heads) {
  const int dim = static_cast<int>(spectrum.mean.size());
  const int head_dim = dim / heads;
  const int components =
      (dim + kBandComponents - 1) / kBandComponents * kBandComponents;
  std::vector<double> matrix(static_cast<size_t>(dim) * components, 0.0);
  std::vector<double> largest(heads, 0.0);
  for (int d = 0; d < dim; ++d) {
    for (int c = 0; c < dim; ++c) {
      double& x = matrix[static_cast<size_t>(d) * components + c];
      x = spectrum.basis[static_cast<size_t>(d) * dim + c] *
          quantiser.StepOf(spectrum, c);
      largest[d / head_dim] = std::max(largest[d / head_dim], std::fabs(x));
    }
  }
  StoredTransform transform;
  transform.mean.assign(spectrum.mean.begin(), spectrum.mean.end());
  for (const double most : largest) {
    transform.head_scales.push_back(
        std::clamp(static_cast<float>(most / 127), FLT_MIN, FLT_MAX));
  }
  for (int d = 0; d < dim; ++d) {
    const double scale = transform.head_scales[d / head_dim];
    for (int c = 0; c < components; ++c) {
      matrix[static_cast<size_t>(d) * components + c] /= scale;
    }
  }
  KeepColumns(dim, components, &matrix);
  for (const double x : matrix) {
    transform.synthesis.push_back(
        static_cast<int8_t>(std::clamp(std::lround(x), -127L, 127L)));
  }
  transform.wide_bands = quantiser.wide / kBandComponents;
  transform.classes.clear();
  for (const int exponent : exponents) {
    transform.classes.push_back({exponent, {}});
    transform.classes.back().bands.resize(components / kBandComponents +
                                          transform.wide_bands);
  }
  return transform;
}

}  // namespace kdn::codec
