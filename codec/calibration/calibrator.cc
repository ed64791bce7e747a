#include "codec/calibration/calibrator.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "codec/calibration/eigenpairs.h"
#include "codec/calibration/row_products.h"
#include "codec/calibration/step_regression.h"
#include "codec/entropy/value_distribution.h"
#include "codec/kernels/row_rotation.h"
#include "codec/kernels/source_rows.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/transform/component_rounding.h"
#include "codec/transform/raw_tokens.h"
#include "codec/transform/step_predictor.h"
#include "codec/transform/symbol_bands.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

constexpr int kHalfBand = kBandComponents / 2;
// The finest quantiser reaches at least this many standard deviations of a
// component, in the class of tokens with the smallest steps. The step is made
// larger where the weighted step would reach less far.
constexpr double kDeviationsInRange = 7.0;
// The most bands of a stream that are wide.
constexpr int kWideBandsMax = 8;
// The exponents of the token classes. The last is for archive only. Without
// known importances there are two: all tokens are alike.
constexpr int kExponents[] = {-1, 0, 1, 2, 3};
constexpr int kExponentsAlike[] = {0, 1};

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

using Matrix = std::vector<double>;  // [dim][dim]

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

// Turns rows so that equal errors in all directions cost the same: root root is
// the metric of the stream, head by head.
class Whitening {
 public:
  explicit Whitening(int dim)
      : root(static_cast<size_t>(dim) * dim), inverse(root), dim_(dim) {}

  // The block of a head from dimension `begin` on, of `head_dim` dimensions.
  // Without a metric, all directions are equal.
  void PutHead(int begin, int head_dim, double weight,
               absl::Span<const double> metric) {
    if (!metric.empty()) return PutMetric(begin, head_dim, weight, metric);
    for (int d = begin; d < begin + head_dim; ++d) {
      root[static_cast<size_t>(d) * dim_ + d] = std::sqrt(weight);
      inverse[static_cast<size_t>(d) * dim_ + d] = 1 / std::sqrt(weight);
    }
  }

  Matrix root;
  Matrix inverse;

 private:
  void PutMetric(int begin, int head_dim, double weight,
                 absl::Span<const double> metric) {
    // The share of a metric that is equal in all directions: few queries say
    // little about a direction that they rarely have.
    constexpr double kEqualShare = 0.03;
    const Eigenpairs pairs = EigenpairsOf(metric, head_dim);
    const double mean =
        std::accumulate(pairs.values.begin(), pairs.values.end(), 0.0) /
        head_dim;
    for (int i = 0; i < head_dim; ++i) {
      const double share =
          mean > 0 ? std::max(pairs.values[i], 0.0) / mean : 1.0;
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

  int dim_;
};

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

// The quantiser of the finest level, for tokens of exponent 0.
struct Quantiser {
  double step = 0;
  int least_exponent = 0;  // of a token class
  int wide = 0;            // leading components

  // The step of a component.
  double StepOf(const Spectrum& spectrum, int component) const {
    const int most = component < wide ? kWideMax : kValueMax;
    return std::max(step, Reach(spectrum, component) / most);
  }
  // How far values should reach, in the metric of the spectrum.
  double Reach(const Spectrum& spectrum, int component) const {
    return std::ldexp(kDeviationsInRange * spectrum.deviations[component],
                      -least_exponent);
  }
};

// The quantiser of a stream. Whole bands are wide, and four of them at a time
// where there are more: matrix units take 64 components at a time.
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

// The step at which `bits_of(step)`, which falls, is `bits`.
template <typename BitsOf>
double StepFor(const BitsOf& bits_of, double bits, double low, double high) {
  for (int i = 0; i < 60 && high / low > 1.0001; ++i) {
    const double middle = std::sqrt(low * high);
    (bits_of(middle) > bits ? low : high) = middle;
  }
  return high;
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
    if (!(longer > 1)) continue;
    for (int d = 0; d < dim; ++d) {
      (*matrix)[static_cast<size_t>(d) * components + c] *= longer;
    }
  }
}

// The transform of a spectrum. The columns of its matrix are the components
// times their steps, in integers of the scale of each of `heads` heads.
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

// The classes that the tokens of a sample have at base.
std::vector<int> ClassesOf(const StoredTransform& transform,
                           absl::Span<const float> sample) {
  const size_t dim = transform.mean.size();
  const auto last =
      static_cast<float>(transform.classes.size() - 1 - kCoarserMax);
  std::vector<int> classes;
  for (size_t at = 0; at < sample.size(); at += dim) {
    const float exponent = PredictedExponent(
        transform.predictor, sample.data() + at, transform.mean);
    const float wanted =
        exponent - static_cast<float>(transform.classes.front().exponent);
    classes.push_back(
        static_cast<int>(std::round(std::clamp(wanted, 0.0f, last))));
  }
  return classes;
}

// The sample's values of the finest quantiser, by token class:
// [token][column]. The tokens of a class are those that have the class at base
// or at archive. Rows that an encoder keeps raw are left out.
std::vector<std::vector<int8_t>> ValuesOf(const StreamTransform& transform,
                                          absl::Span<const float> sample,
                                          absl::Span<const int> classes) {
  const size_t dim = transform.dim();
  const size_t columns = transform.columns();
  const size_t count = transform.classes.size();
  std::vector<float> centred(dim);
  std::vector<float> row(transform.components());
  std::vector<std::vector<int8_t>> values(count);
  for (size_t i = 0; i < classes.size(); ++i) {
    for (int coarser = 0; coarser <= kCoarserMax; ++coarser) {
      const size_t at = classes[i] + coarser;
      if (at >= count) continue;
      const float finer = std::ldexp(1.0f, -transform.classes[at].exponent);
      kernels::Centre(sample.data() + i * dim, transform.mean.data(), finer,
                      dim, centred.data());
      transform.analysis.Apply(centred.data(), 1, row.data(), BestIsa());
      std::vector<int8_t>& of_class = values[at];
      of_class.resize(of_class.size() + columns);
      if (!RoundComponents(transform, row.data(),
                           of_class.data() + of_class.size() - columns)) {
        of_class.resize(of_class.size() - columns);
      }
    }
  }
  return values;
}

// Half bands of similar deviation share tables. A deviation class has the half
// bands within a third of an octave. The low parts of wide components have
// classes of their own where high parts occur: their values do not fall off.
int ClassOf(double mean_square) {
  return static_cast<int>(
      std::lround(1.5 * std::log2(std::max(mean_square, 1e-4))));
}
double DeviationOf(int klass) { return std::exp2(klass / 3.0); }
// A key for the tables of a deviation class. Low parts vary by more than two
// base cells where high parts occur, which bounds the number of tables.
struct TableClass {
  int klass = 0;
  bool is_low = false;

  auto operator<=>(const TableClass&) const = default;
};
TableClass TableClassOf(int klass, bool is_low) {
  constexpr int kLowKlassMin = 13;
  return {klass, is_low && klass >= kLowKlassMin};
}

// Adds a small share of a Laplace distribution of the class's deviation,
// because values that are not in the sample occur too.
ValueCounts Smoothed(const ValueCounts& counts, int klass) {
  constexpr double kShare = 0.02;
  const double decay = std::exp(-std::sqrt(2.0) / DeviationOf(klass));
  const uint64_t total =
      std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  const double height = (1 - decay) / (1 + decay);
  ValueCounts smoothed;
  for (int value = -kValueMax; value <= kValueMax; ++value) {
    const double prior = height * std::pow(decay, std::abs(value));
    smoothed[value + kValueMax] =
        (counts[value + kValueMax] << 16) +
        static_cast<uint64_t>(std::llround(
            kShare * prior * static_cast<double>(total) * 65536.0));
  }
  return smoothed;
}

// The mode of a band at a level where its values have this deviation. `before`:
// a level before codes the band.
BandMode ModeFor(double deviation, bool before) {
  if (before) return BandMode::kQuad;
  if (deviation < 0.15) return BandMode::kAbsent;
  if (deviation < 0.45) return BandMode::kQuad;
  return deviation < 2.2 ? BandMode::kPair : BandMode::kSingle;
}

// Makes each table when a band first asks for it, and returns its index.
class Tables {
 public:
  explicit Tables(const std::map<TableClass, ValueCounts>& classes)
      : classes_(classes) {}

  uint8_t For(TableClass of, int step, BandMode mode, bool before) {
    const auto [at, is_new] = numbers_.try_emplace(
        std::tuple(of, step, mode, before), frequencies_.size());
    if (is_new) {
      const FormatCoder::Table table = SymbolTable(
          CodedCounts(Smoothed(classes_.at(of), of.klass), step, before), mode);
      std::array<uint16_t, FormatCoder::kSymbols> frequencies;
      for (size_t symbol = 0; symbol < FormatCoder::kSymbols; ++symbol) {
        frequencies[symbol] = static_cast<uint16_t>(
            table.frequency(static_cast<uint8_t>(symbol)));
      }
      frequencies_.push_back(frequencies);
    }
    KDN_CHECK(at->second < 256, "an index of a table is one byte");
    return static_cast<uint8_t>(at->second);
  }
  std::vector<std::array<uint16_t, FormatCoder::kSymbols>> Take() {
    return std::move(frequencies_);
  }

 private:
  const std::map<TableClass, ValueCounts>& classes_;
  std::map<std::tuple<TableClass, int, BandMode, bool>, size_t> numbers_;
  std::vector<std::array<uint16_t, FormatCoder::kSymbols>> frequencies_;
};

// Statistics of the values that one class of a stream's tokens has in the
// sample. Components count the high parts of wide components, too.
class ClassStatistics {
 public:
  // `values` are [token][column].
  ClassStatistics(const StoredTransform& transform,
                  const std::vector<int8_t>& values)
      : values_(values),
        low_(static_cast<int>(transform.synthesis.size() /
                              transform.mean.size())),
        columns_(low_ + transform.wide_bands * kBandComponents) {}

  int columns() const { return columns_; }
  // The class of components [begin, begin + kHalfBand).
  TableClass ClassOfHalf(int begin) const {
    double squares = 0;
    ForEach(begin, kHalfBand, [&](int8_t v) { squares += v * v; });
    const bool has_high = begin + low_ < columns_ && !AllZero(begin + low_);
    return TableClassOf(
        ClassOf(squares / std::max<double>(1, Count(kHalfBand))), has_high);
  }
  // Whether a band has high parts of components.
  bool IsHigh(int begin) const { return begin >= low_; }
  // Whether components [begin, begin + kHalfBand) are zero.
  bool AllZero(int begin) const {
    bool zero = true;
    ForEach(begin, kHalfBand, [&](int8_t v) { zero &= v == 0; });
    return zero;
  }
  // Adds the values of these components to `counts`.
  void AddHalf(int begin, ValueCounts* counts) const {
    ForEach(begin, kHalfBand, [&](int8_t v) { ++(*counts)[v + kValueMax]; });
  }
  // BandStep::shrink of a band at a level.
  uint8_t ShrinkOf(int begin, int step) const {
    double excess = 0;
    double count = 0;
    ForEach(begin, kBandComponents, [&](int8_t v) {
      const int at = AtStep(v, step);
      if (at == 0) return;
      excess += CellOf(step) * std::abs(at) - std::abs(v);
      ++count;
    });
    const double mean = count == 0 ? 0 : excess / count;
    const double most = (CellOf(step) - 1) / 2;
    return static_cast<uint8_t>(std::lround(std::clamp(mean, 0.0, most)));
  }

 private:
  double Count(int width) const {
    return static_cast<double>(values_.size() / columns_) * width;
  }
  template <typename Visit>
  void ForEach(int begin, int width, Visit visit) const {
    for (size_t row = 0; row < values_.size(); row += columns_) {
      for (int c = begin; c < begin + width; ++c) visit(values_[row + c]);
    }
  }

  const std::vector<int8_t>& values_;
  int low_;  // components
  int columns_;
};

void ChooseBands(const ClassStatistics& statistics, Tables* tables,
                 TokenClass* token_class) {
  for (size_t i = 0; i < token_class->bands.size(); ++i) {
    const int begin = static_cast<int>(i) * kBandComponents;
    const std::array<TableClass, 2> classes = {
        statistics.ClassOfHalf(begin),
        statistics.ClassOfHalf(begin + kHalfBand)};
    const double deviation =
        DeviationOf(std::max(classes[0].klass, classes[1].klass));
    const bool is_high = statistics.IsHigh(begin);
    const bool is_zero =
        statistics.AllZero(begin) && statistics.AllZero(begin + kHalfBand);
    bool before = false;
    for (int step = 0; step < kLadderSteps; ++step) {
      BandStep& band = token_class->bands[i][step];
      band.mode = ModeFor(deviation / CellOf(step), before);
      if (is_high) {
        // Base has all of a high part. To lose one would be a large error.
        if (step > 0 || is_zero) {
          band.mode = BandMode::kAbsent;
        } else if (band.mode == BandMode::kAbsent) {
          band.mode = BandMode::kQuad;
        }
      } else {
        band.shrink = statistics.ShrinkOf(begin, step);
      }
      if (band.mode == BandMode::kAbsent) continue;
      for (int half = 0; half < 2; ++half) {
        band.tables[half] = tables->For(classes[half], step, band.mode, before);
      }
      before = true;
    }
  }
}

// The bits that rows of the sample take at base, at any step.
class RateSample {
 public:
  // Adds rows of a stream, at the step and with the classes of `transform`.
  void Add(const StreamTransform& transform, absl::Span<const float> sample,
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

  // Bits per value when steps are `ratio` times as large.
  double BitsAt(double ratio) const {
    std::map<int, Histogram> by_deviation;
    double values = 0;
    for (const Part& part : parts_) {
      values += static_cast<double>(part.values.size());
      for (int c = 0; c < part.columns; c += kHalfBand) {
        AddHalf(part, c, static_cast<float>(1 / ratio), by_deviation);
      }
    }
    double bits = 0;
    for (const auto& [klass, histogram] : by_deviation)
      bits += BitsOf(histogram);
    return bits / std::max(values, 1.0);
  }

 private:
  static constexpr size_t kRowsMax = 192;
  static constexpr int kMost = 400;
  using Histogram = std::vector<double>;

  // The rows of one stream, in base cells: [row][column].
  struct Part {
    int columns = 0;
    std::vector<float> values;
    std::vector<int> classes;
  };

  static void AddHalf(const Part& part, int begin, float factor,
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
        const float value = std::nearbyint(from[i] * factor);
        squares[at] += value * value;
        const float most = kMost;
        ++histogram[static_cast<int>(std::clamp(value, -most, most)) + kMost];
      }
      counts[at] += kHalfBand;
    }
    for (int i = 0; i < kTokenClassesMax; ++i) {
      if (counts[i] == 0) continue;
      Histogram& pool = by_deviation[ClassOf(squares[i] / counts[i])];
      if (pool.empty()) pool.resize(2 * kMost + 1);
      for (size_t v = 0; v < pool.size(); ++v) pool[v] += of_class[i][v];
    }
  }
  static double BitsOf(const Histogram& histogram) {
    const double total =
        std::accumulate(histogram.begin(), histogram.end(), 0.0);
    double bits = 0;
    for (const double count : histogram) {
      if (count > 0) bits -= count * std::log2(count / total);
    }
    return bits;
  }

  std::vector<Part> parts_;
};

}  // namespace

absl::StatusOr<int> Calibrator::TokensMin(const ModelSpec& spec) {
  if (absl::Status s = Validate(spec); !s.ok()) return s;
  if (spec.head_dim > kTransformDimMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the transform-coded levels take heads of up to ", kTransformDimMax,
        " dimensions, ", spec.name, " has ", spec.head_dim,
        ": its KV can be kept at int8 and lossless"));
  }
  return 4 * spec.head_dim * JointHeads(spec, kJoinedDims);
}

int Calibrator::JointHeads(const ModelSpec& spec, int joined_dims) {
  const int most = std::min(joined_dims, kJointDimMax) / (2 * spec.head_dim);
  int heads = std::clamp(most, 1, spec.num_kv_heads);
  while (spec.num_kv_heads % heads != 0) --heads;
  return heads;
}

absl::StatusOr<Calibrator> Calibrator::Create(const ModelSpec& spec,
                                              int sample_tokens,
                                              int joined_dims) {
  if (const auto tokens = TokensMin(spec); !tokens.ok()) {
    return tokens.status();
  }
  return Calibrator(spec, std::max(sample_tokens, kSampleTokensMin),
                    JointHeads(spec, joined_dims));
}

uint64_t Calibrator::MomentBytes(const ModelSpec& spec) {
  const auto heads = static_cast<uint64_t>(JointHeads(spec, kJoinedDims));
  const uint64_t dim = 2 * heads * static_cast<uint64_t>(spec.head_dim);
  const uint64_t streams = static_cast<uint64_t>(spec.num_layers) *
                           (static_cast<uint64_t>(spec.num_kv_heads) / heads);
  return streams * dim * (dim + 1) * sizeof(double);
}

Calibrator::Calibrator(const ModelSpec& spec, int sample_tokens,
                       int joint_heads)
    : spec_(spec),
      heads_(joint_heads),
      dim_(2 * heads_ * spec.head_dim),
      sample_tokens_(sample_tokens),
      streams_(static_cast<size_t>(spec.num_layers) * StreamsOfLayer()) {
  for (Stream& stream : streams_) {
    stream.sum.resize(dim_);
    stream.products.resize(static_cast<size_t>(dim_) * dim_);
  }
}

std::vector<Rows> Calibrator::HeadsOf(const KvView& kv, size_t stream) const {
  const int first = static_cast<int>(stream) % StreamsOfLayer() * heads_;
  const int layer = static_cast<int>(stream) / StreamsOfLayer();
  std::vector<Rows> heads;
  for (const KvPart part : {KvPart::kK, KvPart::kV}) {
    for (int head = first; head < first + heads_; ++head) {
      heads.push_back(RowsOf(kv.Layer(layer), part, head));
    }
  }
  return heads;
}

std::vector<float> Calibrator::ImportanceOf(
    size_t stream, int tokens, absl::Span<const double> importance) const {
  // The least importance of a token, as a share of the head's mean: a gradient
  // may miss what a token is for.
  constexpr double kLeastShare = 1e-3;
  if (importance.empty()) return std::vector<float>(tokens, NAN);
  std::vector<float> result(tokens, 0.0f);
  for (int head = 0; head < heads_; ++head) {
    const auto of_head =
        importance.subspan((stream * heads_ + head) * tokens, tokens);
    const double mean =
        std::accumulate(of_head.begin(), of_head.end(), 0.0) / tokens;
    for (int token = 0; token < tokens; ++token) {
      const double share = mean > 0 ? of_head[token] / mean + kLeastShare : 1.0;
      result[token] += static_cast<float>(std::log2(share) / heads_);
    }
  }
  return result;
}

void Calibrator::Thin() {
  while (tokens_ / sample_step_ > sample_tokens_) {
    sample_step_ *= 2;
    for (Stream& stream : streams_) {
      const size_t rows = stream.sample.size() / dim_;
      for (size_t row = 0; 2 * row < rows; ++row) {
        std::copy_n(&stream.sample[2 * row * dim_], dim_,
                    &stream.sample[row * dim_]);
        stream.importance[row] = stream.importance[2 * row];
      }
      stream.sample.resize((rows + 1) / 2 * dim_);
      stream.importance.resize((rows + 1) / 2);
    }
  }
}

absl::Status Calibrator::Add(const KvView& kv,
                             absl::Span<const int32_t> positions,
                             absl::Span<const double> importance) {
  const KvShape& shape = kv.shape();
  if (shape != ShapeOf(spec_, shape.tokens) ||
      positions.size() != static_cast<size_t>(shape.tokens)) {
    return absl::InvalidArgumentError(
        "the KV does not have the shape of the model, or there is not one "
        "position for each token");
  }
  const size_t planes = static_cast<size_t>(shape.layers) * shape.kv_heads;
  const bool fits =
      importance.empty() || importance.size() == planes * positions.size();
  if (!fits || !std::all_of(importance.begin(), importance.end(), [](double x) {
        return std::isfinite(x) && x >= 0;
      })) {
    return absl::InvalidArgumentError(
        "there is not one finite importance of at least 0 for each layer, KV "
        "head and token");
  }
  const RowRotation undo = RowRotation::Undo(RopeTable(spec_.rope), positions);
  const StreamShape stream_shape{.heads = 2 * heads_,
                                 .tokens = shape.tokens,
                                 .head_dim = shape.head_dim,
                                 .dtype = shape.dtype,
                                 .joint = true};
  for (size_t stream = 0; stream < streams_.size(); ++stream) {
    SourceRows rows;
    if (!rows.Load(stream_shape, HeadsOf(kv, stream), &undo)) {
      return absl::InvalidArgumentError("a value of the KV is not finite");
    }
  }
  for (size_t i = 0; i < streams_.size(); ++i) {
    SourceRows rows;
    rows.Load(stream_shape, HeadsOf(kv, i), &undo);
    const std::vector<int> far =
        CentreWithoutFar(rows.values(), dim_, positions).far;
    const std::vector<float> known = ImportanceOf(i, shape.tokens, importance);
    Stream& stream = streams_[i];
    std::vector<double> added;
    for (int token = 0; token < shape.tokens; ++token) {
      if (std::binary_search(far.begin(), far.end(), token)) continue;
      ++stream.tokens;
      for (int d = 0; d < dim_; ++d) {
        added.push_back(rows.Row(token)[d]);
        stream.sum[d] += added.back();
      }
      if ((tokens_ + token) % sample_step_ != 0) continue;
      stream.sample.insert(stream.sample.end(), rows.Row(token),
                           rows.Row(token) + dim_);
      stream.importance.push_back(known[token]);
    }
    AddRowProducts(added, dim_, stream.products.data());
  }
  tokens_ += shape.tokens;
  Thin();
  return absl::OkStatus();
}

absl::Status Calibrator::Check(const Options& options) const {
  if (tokens_ < TokensMin()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "calibrating streams of ", dim_, " dimensions needs at least ",
        TokensMin(), " tokens, got ", tokens_));
  }
  const size_t planes = 2 * static_cast<size_t>(spec_.num_layers);
  const size_t matrices = planes * spec_.num_kv_heads;
  for (const double weight : options.weights) {
    if (!(weight > 0 && std::isfinite(weight)) ||
        options.weights.size() != matrices) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected ", matrices, " finite weights above 0"));
    }
  }
  const size_t elements = static_cast<size_t>(spec_.head_dim) * spec_.head_dim;
  for (const auto& metric : options.metrics) {
    if (options.metrics.size() != matrices || metric.size() != elements ||
        !std::all_of(metric.begin(), metric.end(),
                     [](double x) { return std::isfinite(x); })) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected ", matrices, " finite metrics of ",
                       spec_.head_dim, " x ", spec_.head_dim, " elements"));
    }
  }
  return absl::OkStatus();
}

std::vector<Spectrum> Calibrator::SpectraOf(const Options& options) const {
  std::vector<Spectrum> spectra;
  for (size_t i = 0; i < streams_.size(); ++i) {
    const size_t layer = i / StreamsOfLayer();
    const size_t first = i % StreamsOfLayer() * heads_;
    Whitening whitening(dim_);
    for (int j = 0; j < 2 * heads_; ++j) {
      const size_t plane = 2 * layer + (j < heads_ ? 0 : 1);
      const size_t at = plane * spec_.num_kv_heads + first + j % heads_;
      whitening.PutHead(j * spec_.head_dim, spec_.head_dim,
                        options.weights.empty() ? 1.0 : options.weights[at],
                        options.metrics.empty()
                            ? absl::Span<const double>()
                            : absl::MakeConstSpan(options.metrics[at]));
    }
    const Stream& stream = streams_[i];
    spectra.push_back(
        SpectrumOf(stream.tokens, stream.sum, stream.products, whitening));
  }
  return spectra;
}

absl::StatusOr<StoredCalibration> Calibrator::Finish(
    const Options& options) const {
  if (absl::Status s = Check(options); !s.ok()) return s;
  const std::vector<Spectrum> spectra = SpectraOf(options);
  const bool has_importance = std::any_of(
      streams_.front().importance.begin(), streams_.front().importance.end(),
      [](float x) { return !std::isnan(x); });
  const absl::Span<const int> exponents =
      has_importance ? absl::MakeConstSpan(kExponents)
                     : absl::MakeConstSpan(kExponentsAlike);
  StoredCalibration stored;
  stored.model = FingerprintOf(spec_);
  stored.geometry = {spec_.num_layers, spec_.num_kv_heads, spec_.head_dim};
  stored.joint_heads = heads_;
  // The step from the deviations alone, and then as the sample shows.
  double step = StepFor([&](double x) { return BaseBits(spectra, x); },
                        options.base_bits, 1e-12, 1e12);
  RateSample rate;
  std::vector<StepPredictor> predictors;
  std::vector<std::vector<int>> token_classes;
  for (size_t i = 0; i < streams_.size(); ++i) {
    StoredTransform transform =
        TransformOf(spectra[i], QuantiserOf(spectra[i], step, exponents[0]),
                    exponents, 2 * heads_);
    transform.predictor =
        FitSteps(streams_[i].sample, transform.mean, streams_[i].importance);
    predictors.push_back(transform.predictor);
    token_classes.push_back(ClassesOf(transform, streams_[i].sample));
    const auto made = MakeTransform(transform);
    if (!made.ok()) return made.status();
    rate.Add(*made, streams_[i].sample, token_classes.back());
  }
  constexpr double kRatioMax = 1e3;
  step *= StepFor([&](double x) { return rate.BitsAt(x); }, options.base_bits,
                  1 / kRatioMax, kRatioMax);
  std::vector<std::vector<std::vector<int8_t>>> values;
  std::map<TableClass, ValueCounts> classes;
  for (size_t i = 0; i < streams_.size(); ++i) {
    stored.streams.push_back(
        TransformOf(spectra[i], QuantiserOf(spectra[i], step, exponents[0]),
                    exponents, 2 * heads_));
    stored.streams.back().predictor = predictors[i];
    const auto transform = MakeTransform(stored.streams.back());
    if (!transform.ok()) return transform.status();
    values.push_back(
        ValuesOf(*transform, streams_[i].sample, token_classes[i]));
    for (const auto& of_class : values.back()) {
      const ClassStatistics statistics(stored.streams.back(), of_class);
      for (int c = 0; c < statistics.columns(); c += kHalfBand) {
        statistics.AddHalf(c, &classes[statistics.ClassOfHalf(c)]);
      }
    }
  }
  Tables tables(classes);
  for (size_t i = 0; i < streams_.size(); ++i) {
    StoredTransform& transform = stored.streams[i];
    for (size_t k = 0; k < transform.classes.size(); ++k) {
      ChooseBands(ClassStatistics(transform, values[i][k]), &tables,
                  &transform.classes[k]);
    }
  }
  stored.tables = tables.Take();
  return stored;
}

}  // namespace kdn::codec
