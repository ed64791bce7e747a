#ifndef KDN_CODEC_CALIBRATION_SPECTRUM_H_
#define KDN_CODEC_CALIBRATION_SPECTRUM_H_

#include <vector>

#include "absl/types/span.h"
#include "codec/calibration/calibration_format.h"

namespace kdn::codec {

// A square matrix of the rows of a stream, [dim][dim].
using Matrix = std::vector<double>;

// Turns rows so that equal errors in all directions cost the same: root root is
// the metric of the stream, head by head.
class Whitening {
 public:
  explicit Whitening(int dim)
      : root(static_cast<size_t>(dim) * dim), inverse(root), dim_(dim) {}

  // The block of a head from dimension `begin` on, of `head_dim` dimensions.
  // Without a metric, all directions are equal.
  void PutHead(int begin, int head_dim, double weight,
               absl::Span<const double> metric);

  Matrix root;
  Matrix inverse;

 private:
  void PutMetric(int begin, int head_dim, double weight,
                 absl::Span<const double> metric);

  int dim_;
};

// The Karhunen-Loeve transform of one stream's whitened rows.
struct Spectrum {
  std::vector<double> mean;
  std::vector<double> deviations;  // of the components, falling
  Matrix basis;  // [dim][component]: the row of a component of 1
};

// The spectrum of rows of which there are `tokens`, with this sum and sum of
// products; `products` has [a][b] for b <= a.
Spectrum SpectrumOf(double tokens, const std::vector<double>& sum,
                    const Matrix& products, const Whitening& whitening);

// The quantiser of the finest level, for tokens of exponent 0.
struct Quantiser {
  double step = 0;
  int least_exponent = 0;  // of a token class
  int wide = 0;            // leading components

  // The step of a component.
  double StepOf(const Spectrum& spectrum, int component) const;
  // How far values should reach, in the metric of the spectrum.
  double Reach(const Spectrum& spectrum, int component) const;
};

// The quantiser of a stream. Whole bands are wide, and four of them at a time
// where there are more: matrix units take 64 components at a time.
Quantiser QuantiserOf(const Spectrum& spectrum, double step,
                      int least_exponent);

// The bits per value of the base level, for normal components without classes.
double BaseBits(absl::Span<const Spectrum> spectra, double step);

// The transform of a spectrum. The columns of its matrix are the components
// times their steps, in integers of the scale of each of `heads` heads. Its
// classes have these exponents, and bands that are not coded.
StoredTransform TransformOf(const Spectrum& spectrum,
                            const Quantiser& quantiser,
                            absl::Span<const int> exponents, int heads);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_SPECTRUM_H_
