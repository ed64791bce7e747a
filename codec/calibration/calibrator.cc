#include "codec/calibration/calibrator.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "codec/calibration/eigenpairs.h"
#include "codec/entropy/value_distribution.h"
#include "codec/kernels/row_rotation.h"
#include "codec/kernels/source_rows.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/transform/raw_tokens.h"
#include "codec/transform/symbol_bands.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

constexpr int kHalfBand = kBandComponents / 2;
// The finest quantiser reaches at least this many standard deviations of a
// component. The step is made larger where the weighted step would reach less
// far.
constexpr double kDeviationsInRange = 7.0;

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

// The Karhunen-Loeve transform of one stream's whitened rows.
struct Spectrum {
  std::vector<double> mean;
  std::vector<double> deviations;  // of the components, falling
  Matrix basis;  // [dim][component]: the row of a component of 1
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

// The finest quantiser's step for a component.
double StepOf(const Spectrum& spectrum, double step, int component) {
  return std::max(
      step, kDeviationsInRange * spectrum.deviations[component] / kValueMax);
}

double BaseBits(absl::Span<const Spectrum> spectra, double step) {
  double bits = 0;
  size_t components = 0;
  for (const Spectrum& spectrum : spectra) {
    const int count = static_cast<int>(spectrum.deviations.size());
    for (int i = 0; i < count; ++i) {
      bits += EntropyOf(spectrum.deviations[i] /
                        (CellOf(0) * StepOf(spectrum, step, i)));
    }
    components += count;
  }
  return bits / static_cast<double>(components);
}

// The finest step, at weight 1, with which the base level takes `bits` per
// value.
double StepFor(absl::Span<const Spectrum> spectra, double bits) {
  double low = 1e-12;
  double high = 1e12;
  for (int i = 0; i < 100; ++i) {
    const double middle = std::sqrt(low * high);
    (BaseBits(spectra, middle) > bits ? low : high) = middle;
  }
  return high;
}

// Lengthens columns that would round to almost nothing in integers of `unit`.
// Their components get a larger step, but are not lost.
void KeepColumns(int dim, int components, double unit,
                 std::vector<double>* matrix) {
  constexpr double kLeastEntry = 4;  // the least that a column's largest may be
  for (int c = 0; c < dim; ++c) {
    double largest = 0;
    for (int d = 0; d < dim; ++d) {
      largest = std::max(
          largest,
          std::fabs((*matrix)[static_cast<size_t>(d) * components + c]));
    }
    const double longer = kLeastEntry * unit / largest;
    if (!(longer > 1)) continue;
    for (int d = 0; d < dim; ++d) {
      (*matrix)[static_cast<size_t>(d) * components + c] *= longer;
    }
  }
}

// The transform of a spectrum. The columns of its matrix are the components
// times their steps, in integers of `scale`.
StoredTransform TransformOf(const Spectrum& spectrum, double step) {
  const int dim = static_cast<int>(spectrum.mean.size());
  const int components =
      (dim + kBandComponents - 1) / kBandComponents * kBandComponents;
  std::vector<double> matrix(static_cast<size_t>(dim) * components, 0.0);
  double largest = 0;
  for (int d = 0; d < dim; ++d) {
    for (int c = 0; c < dim; ++c) {
      double& x = matrix[static_cast<size_t>(d) * components + c];
      x = spectrum.basis[static_cast<size_t>(d) * dim + c] *
          StepOf(spectrum, step, c);
      largest = std::max(largest, std::fabs(x));
    }
  }
  StoredTransform transform;
  transform.mean.assign(spectrum.mean.begin(), spectrum.mean.end());
  transform.scale = static_cast<float>(largest / 127);
  KeepColumns(dim, components, transform.scale, &matrix);
  for (const double x : matrix) {
    transform.synthesis.push_back(
        static_cast<int8_t>(std::lround(x / transform.scale)));
  }
  transform.bands.resize(components / kBandComponents);
  return transform;
}

// The sample's values of the finest quantiser, [token][component]; rows that
// an encoder keeps raw are left out.
std::vector<int8_t> ValuesOf(const StreamTransform& transform,
                             absl::Span<const float> sample) {
  const size_t dim = transform.dim();
  const size_t components = transform.components();
  std::vector<float> centred(dim);
  std::vector<float> row(components);
  std::vector<int8_t> values;
  for (size_t at = 0; at < sample.size(); at += dim) {
    kernels::Centre(sample.data() + at, transform.mean.data(), 1.0f, dim,
                    centred.data());
    transform.analysis.Apply(centred.data(), 1, row.data(), BestIsa());
    values.resize(values.size() + components);
    if (!kernels::RoundToValues(row.data(), components, kValueMax,
                                values.data() + values.size() - components)) {
      values.resize(values.size() - components);
    }
  }
  return values;
}

// Half bands of similar deviation share tables. A class has the half bands
// within a third of an octave.
int ClassOf(double mean_square) {
  return static_cast<int>(
      std::lround(1.5 * std::log2(std::max(mean_square, 1e-4))));
}
double DeviationOf(int klass) { return std::exp2(klass / 3.0); }

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
  explicit Tables(const std::map<int, ValueCounts>& classes)
      : classes_(classes) {}

  uint8_t For(int klass, int step, BandMode mode, bool before) {
    const auto [at, is_new] = numbers_.try_emplace(
        std::tuple(klass, step, mode, before), frequencies_.size());
    if (is_new) {
      const FormatCoder::Table table = SymbolTable(
          CodedCounts(Smoothed(classes_.at(klass), klass), step, before), mode);
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
  const std::map<int, ValueCounts>& classes_;
  std::map<std::tuple<int, int, BandMode, bool>, size_t> numbers_;
  std::vector<std::array<uint16_t, FormatCoder::kSymbols>> frequencies_;
};

// Statistics of one stream's values in the sample.
class StreamStatistics {
 public:
  StreamStatistics(const std::vector<int8_t>& values, int components)
      : values_(values), components_(components) {}

  // The class of components [begin, begin + kHalfBand).
  int ClassOfHalf(int begin) const {
    double squares = 0;
    ForEach(begin, kHalfBand, [&](int8_t v) { squares += v * v; });
    return ClassOf(squares / std::max<double>(1, Count(kHalfBand)));
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
    return static_cast<double>(values_.size() / components_) * width;
  }
  template <typename Visit>
  void ForEach(int begin, int width, Visit visit) const {
    for (size_t row = 0; row < values_.size(); row += components_) {
      for (int c = begin; c < begin + width; ++c) visit(values_[row + c]);
    }
  }

  const std::vector<int8_t>& values_;
  int components_;
};

void ChooseBands(const StreamStatistics& statistics, Tables* tables,
                 StoredTransform* transform) {
  for (size_t i = 0; i < transform->bands.size(); ++i) {
    const int begin = static_cast<int>(i) * kBandComponents;
    const std::array<int, 2> classes = {
        statistics.ClassOfHalf(begin),
        statistics.ClassOfHalf(begin + kHalfBand)};
    const double deviation = DeviationOf(std::max(classes[0], classes[1]));
    bool before = false;
    for (int step = 0; step < kLadderSteps; ++step) {
      BandStep& band = transform->bands[i][step];
      band.mode = ModeFor(deviation / CellOf(step), before);
      band.shrink = statistics.ShrinkOf(begin, step);
      if (band.mode == BandMode::kAbsent) continue;
      for (int half = 0; half < 2; ++half) {
        band.tables[half] = tables->For(classes[half], step, band.mode, before);
      }
      before = true;
    }
  }
}

}  // namespace

absl::StatusOr<int> Calibrator::TokensMin(const ModelSpec& spec) {
  if (absl::Status s = Validate(spec); !s.ok()) return s;
  if (spec.head_dim > kTransformDimMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the transform-coded levels take heads of up to ", kTransformDimMax,
        " dimensions, ", spec.name, " has ", spec.head_dim,
        ": its KV can be kept at int8 and lossless"));
  }
  return 2 * spec.head_dim *
         HeadsPerStream(spec.num_kv_heads, spec.head_dim, Level::kBase);
}

absl::StatusOr<Calibrator> Calibrator::Create(const ModelSpec& spec,
                                              int sample_tokens) {
  if (const auto tokens = TokensMin(spec); !tokens.ok()) {
    return tokens.status();
  }
  return Calibrator(spec, std::max(sample_tokens, kSampleTokensMin));
}

uint64_t Calibrator::MomentBytes(const ModelSpec& spec) {
  const auto heads = static_cast<uint64_t>(
      HeadsPerStream(spec.num_kv_heads, spec.head_dim, Level::kBase));
  const uint64_t dim = heads * static_cast<uint64_t>(spec.head_dim);
  const uint64_t streams = 2 * static_cast<uint64_t>(spec.num_layers) *
                           (static_cast<uint64_t>(spec.num_kv_heads) / heads);
  return streams * dim * (dim + 1) * sizeof(double);
}

Calibrator::Calibrator(const ModelSpec& spec, int sample_tokens)
    : spec_(spec),
      heads_(HeadsPerStream(spec.num_kv_heads, spec.head_dim, Level::kBase)),
      dim_(heads_ * spec.head_dim),
      sample_tokens_(sample_tokens),
      streams_(static_cast<size_t>(spec.num_layers) * 2 * StreamsOfPart()) {
  for (Stream& stream : streams_) {
    stream.sum.resize(dim_);
    stream.products.resize(static_cast<size_t>(dim_) * dim_);
  }
}

std::vector<Rows> Calibrator::HeadsOf(const KvView& kv, size_t stream) const {
  const int first = static_cast<int>(stream) % StreamsOfPart() * heads_;
  const int plane = static_cast<int>(stream) / StreamsOfPart();
  std::vector<Rows> heads;
  for (int head = first; head < first + heads_; ++head) {
    heads.push_back(
        RowsOf(kv.Layer(plane / 2), static_cast<KvPart>(plane % 2), head));
  }
  return heads;
}

void Calibrator::AddRow(const float* row, bool in_sample, Stream& stream) {
  ++stream.tokens;
  for (int a = 0; a < dim_; ++a) {
    const double x = row[a];
    stream.sum[a] += x;
    double* const products = &stream.products[static_cast<size_t>(a) * dim_];
    for (int b = 0; b <= a; ++b) products[b] += x * row[b];
  }
  if (in_sample) stream.sample.insert(stream.sample.end(), row, row + dim_);
}

void Calibrator::Thin() {
  while (tokens_ / sample_step_ > sample_tokens_) {
    sample_step_ *= 2;
    for (Stream& stream : streams_) {
      const size_t rows = stream.sample.size() / dim_;
      for (size_t row = 0; 2 * row < rows; ++row) {
        std::copy_n(&stream.sample[2 * row * dim_], dim_,
                    &stream.sample[row * dim_]);
      }
      stream.sample.resize((rows + 1) / 2 * dim_);
    }
  }
}

absl::Status Calibrator::Add(const KvView& kv,
                             absl::Span<const int32_t> positions) {
  const KvShape& shape = kv.shape();
  if (shape != ShapeOf(spec_, shape.tokens) ||
      positions.size() != static_cast<size_t>(shape.tokens)) {
    return absl::InvalidArgumentError(
        "the KV does not have the shape of the model, or there is not one "
        "position for each token");
  }
  const RowRotation undo = RowRotation::Undo(RopeTable(spec_.rope), positions);
  const StreamShape stream_shape{.heads = heads_,
                                 .tokens = shape.tokens,
                                 .head_dim = shape.head_dim,
                                 .dtype = shape.dtype};
  const auto load = [&](size_t stream, SourceRows& rows) {
    const bool is_k = stream / StreamsOfPart() % 2 == 0;
    return rows.Load(stream_shape, HeadsOf(kv, stream), is_k ? &undo : nullptr);
  };
  for (size_t stream = 0; stream < streams_.size(); ++stream) {
    SourceRows rows;
    if (!load(stream, rows)) {
      return absl::InvalidArgumentError("a value of the KV is not finite");
    }
  }
  for (size_t stream = 0; stream < streams_.size(); ++stream) {
    SourceRows rows;
    load(stream, rows);
    const std::vector<int> far =
        CentreWithoutFar(rows.values(), dim_, positions).far;
    for (int token = 0; token < shape.tokens; ++token) {
      if (std::binary_search(far.begin(), far.end(), token)) continue;
      AddRow(rows.Row(token), (tokens_ + token) % sample_step_ == 0,
             streams_[stream]);
    }
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

absl::StatusOr<StoredCalibration> Calibrator::Finish(
    const Options& options) const {
  if (absl::Status s = Check(options); !s.ok()) return s;
  std::vector<Spectrum> spectra;
  for (size_t i = 0; i < streams_.size(); ++i) {
    const Stream& stream = streams_[i];
    Whitening whitening(dim_);
    for (int head = 0; head < heads_; ++head) {
      // A stream has heads_ heads, and heads are in the order of streams.
      const size_t at = i * heads_ + head;
      whitening.PutHead(head * spec_.head_dim, spec_.head_dim,
                        options.weights.empty() ? 1.0 : options.weights[at],
                        options.metrics.empty()
                            ? absl::Span<const double>()
                            : absl::MakeConstSpan(options.metrics[at]));
    }
    spectra.push_back(
        SpectrumOf(stream.tokens, stream.sum, stream.products, whitening));
  }
  const double step = StepFor(spectra, options.base_bits);
  StoredCalibration stored;
  stored.model = FingerprintOf(spec_);
  stored.geometry = {spec_.num_layers, spec_.num_kv_heads, spec_.head_dim};
  std::vector<std::vector<int8_t>> values;
  std::map<int, ValueCounts> classes;
  for (size_t i = 0; i < streams_.size(); ++i) {
    stored.streams.push_back(TransformOf(spectra[i], step));
    const auto transform = MakeTransform(stored.streams.back());
    if (!transform.ok()) return transform.status();
    values.push_back(ValuesOf(*transform, streams_[i].sample));
    const StreamStatistics statistics(values.back(), transform->components());
    for (int c = 0; c < transform->components(); c += kHalfBand) {
      statistics.AddHalf(c, &classes[statistics.ClassOfHalf(c)]);
    }
  }
  Tables tables(classes);
  for (size_t i = 0; i < streams_.size(); ++i) {
    StoredTransform& transform = stored.streams[i];
    ChooseBands(
        StreamStatistics(values[i], static_cast<int>(transform.bands.size()) *
                                        kBandComponents),
        &tables, &transform);
  }
  stored.tables = tables.Take();
  return stored;
}

}  // namespace kdn::codec
