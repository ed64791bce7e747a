#include "codec/calibration/rate_sample.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "codec/calibration/band_choice.h"
#include "codec/kernels/vector_kernels.h"
#include "kv/isa.h"

namespace kdn::codec {

void RateSample::Add(const StreamTransform& transform,
                     absl::Span<const float> sample,
                     absl::Span<const int> classes) {
  const size_t dim = transform.dim();
  Part part;
  part.columns = transform.components();
  std::vector<float> centred(dim);
  const size_t every = (classes.size() + kRowsMax - 1) / kRowsMax;
  for (size_t i = 0; i < classes.size(); i += every) {
    kernels::Centre(
        sample.data() + i * dim, transform.mean.data(),
        std::ldexp(1.0f / CellOf(0), -transform.classes[classes[i]].exponent),
        dim, centred.data());
    part.values.resize(part.values.size() + part.columns);
    transform.analysis.Apply(
        centred.data(), 1,
        part.values.data() + part.values.size() - part.columns, BestIsa());
    part.classes.push_back(classes[i]);
  }
  parts_.push_back(std::move(part));
}

double RateSample::BitsAt(double ratio) const {
  std::map<int, Histogram> by_deviation;
  double values = 0;
  for (const Part& part : parts_) {
    values += static_cast<double>(part.values.size());
    for (int c = 0; c < part.columns; c += kHalfBand) {
      AddHalf(part, c, static_cast<float>(1 / ratio), by_deviation);
    }
  }
  double bits = 0;
  for (const auto& [klass, histogram] : by_deviation) bits += BitsOf(histogram);
  return bits / std::max(values, 1.0);
}

void RateSample::AddHalf(const Part& part, int begin, float factor,
                         std::map<int, Histogram>& by_deviation) {
  std::array<Histogram, kTokenClassesMax> of_class;
  std::array<double, kTokenClassesMax> squares{};
  std::array<double, kTokenClassesMax> counts{};
  for (size_t row = 0; row < part.classes.size(); ++row) {
    const int at = part.classes[row];
    Histogram& histogram = of_class[at];
    if (histogram.empty()) histogram.resize(2 * kMost + 1);
    const float* const from = &part.values[row * part.columns + begin];
    for (int i = 0; i < kHalfBand; ++i) {
      float value = std::nearbyint(from[i] * factor);
      if (std::isnan(value)) value = 0;  // of rows near the largest float
      squares[at] += double{value} * value;
      const float most = kMost;
      ++histogram[static_cast<int>(std::clamp(value, -most, most)) + kMost];
    }
    counts[at] += kHalfBand;
  }
  for (int i = 0; i < kTokenClassesMax; ++i) {
    if (counts[i] == 0) continue;
    Histogram& pool = by_deviation[DeviationClass(squares[i] / counts[i])];
    if (pool.empty()) pool.resize(2 * kMost + 1);
    for (size_t v = 0; v < pool.size(); ++v) pool[v] += of_class[i][v];
  }
}

double RateSample::BitsOf(const Histogram& histogram) {
  const double total = std::accumulate(histogram.begin(), histogram.end(), 0.0);
  double bits = 0;
  for (const double count : histogram) {
    if (count > 0) bits -= count * std::log2(count / total);
  }
  return bits;
}

}  // namespace kdn::codec
