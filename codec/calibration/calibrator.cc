#include "codec/calibration/calibrator.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "codec/calibration/band_choice.h"
#include "codec/calibration/rate_sample.h"
#include "codec/calibration/row_products.h"
#include "codec/calibration/spectrum.h"
#include "codec/calibration/step_regression.h"
#include "codec/calibration/transform_sizes.h"
#include "codec/kernels/row_rotation.h"
#include "codec/kernels/source_rows.h"
#include "codec/kernels/stream_rows.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/transform/component_rounding.h"
#include "codec/transform/raw_tokens.h"
#include "codec/transform/step_predictor.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// The bits per value of a chunk of a thousand tokens that are not symbols: raw
// tokens, token classes, patches, states of the coder and the prefix.
constexpr double kSideBits = 0.08;
// The exponents of the token classes. The last is for archive only. Without
// known importances there are two: all tokens are alike.
constexpr int kExponents[] = {-1, 0, 1, 2, 3};
constexpr int kExponentsAlike[] = {0, 1};

Calibration::Geometry GeometryOf(const ModelSpec& spec) {
  return {spec.num_layers, spec.num_kv_heads, spec.head_dim};
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

// The classes that the tokens of a sample have at base.
std::vector<int> ClassesOf(const StoredTransform& transform,
                           absl::Span<const float> sample) {
  const size_t dim = transform.mean.size();
  std::vector<int> classes;
  for (size_t at = 0; at < sample.size(); at += dim) {
    classes.push_back(static_cast<int>(
        std::round(WantedClass(transform.classes, transform.predictor,
                               sample.data() + at, transform.mean))));
  }
  return classes;
}

// The sample's values of the finest quantiser, by token class:
// [token][column]. The tokens of a class are those that have the class at base
// or at archive; if they are few, all tokens. Rows that an encoder keeps raw
// are left out.
std::vector<std::vector<int8_t>> ValuesOf(const StreamTransform& transform,
                                          absl::Span<const float> sample,
                                          absl::Span<const int> classes) {
  constexpr size_t kTokensMin = 64;
  const size_t dim = transform.dim();
  const size_t columns = transform.columns();
  std::vector<float> centred(dim);
  std::vector<float> row(transform.components());
  std::vector<std::vector<int8_t>> values(transform.classes.size());
  for (size_t at = 0; at < values.size(); ++at) {
    std::vector<int8_t>& of_class = values[at];
    const float finer = std::ldexp(1.0f, -transform.classes[at].exponent);
    const auto add = [&](size_t token) {
      kernels::Centre(sample.data() + token * dim, transform.mean.data(), finer,
                      dim, centred.data());
      transform.analysis.Apply(centred.data(), 1, row.data(), BestIsa());
      of_class.resize(of_class.size() + columns);
      if (!RoundComponents(transform, row.data(),
                           of_class.data() + of_class.size() - columns)) {
        of_class.resize(of_class.size() - columns);
      }
    };
    for (size_t token = 0; token < classes.size(); ++token) {
      const int coarser = static_cast<int>(at) - classes[token];
      if (coarser >= 0 && coarser <= kCoarserMax) add(token);
    }
    if (of_class.size() >= kTokensMin * columns) continue;
    of_class.clear();
    for (size_t token = 0; token < classes.size(); ++token) add(token);
  }
  return values;
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
  return 2 * SizesOf(GeometryOf(spec), JointHeads(spec)).dim;
}

int Calibrator::JointHeads(const ModelSpec& spec) {
  const int most = kJoinedDims / (2 * spec.head_dim);
  int heads = std::clamp(most, 1, spec.num_kv_heads);
  while (spec.num_kv_heads % heads != 0) --heads;
  return heads;
}

absl::StatusOr<Calibrator> Calibrator::Create(const ModelSpec& spec,
                                              int sample_tokens) {
  if (const auto tokens = TokensMin(spec); !tokens.ok()) {
    return tokens.status();
  }
  return Calibrator(spec, std::max(sample_tokens, kSampleTokensMin));
}

uint64_t Calibrator::MomentBytes(const ModelSpec& spec) {
  const TransformSizes sizes = SizesOf(GeometryOf(spec), JointHeads(spec));
  const auto dim = static_cast<uint64_t>(sizes.dim);
  return sizes.count * dim * (dim + 1) * sizeof(double);
}

Calibrator::Calibrator(const ModelSpec& spec, int sample_tokens)
    : spec_(spec),
      heads_(JointHeads(spec)),
      dim_(SizesOf(GeometryOf(spec), heads_).dim),
      sample_tokens_(sample_tokens),
      streams_(SizesOf(GeometryOf(spec), heads_).count) {
  for (Stream& stream : streams_) {
    stream.sum.resize(dim_);
    stream.products.resize(static_cast<size_t>(dim_) * dim_);
  }
}

std::vector<Rows> Calibrator::HeadsOf(const KvView& kv,
                                      const StreamShape& shape,
                                      size_t stream) const {
  const int at = static_cast<int>(stream);
  const int layer = at / StreamsOfLayer();
  return RowsOfStream(kv.Layer(layer), shape,
                      {Level::kBase, layer, KvPart::kK, at % StreamsOfLayer()});
}

std::vector<float> Calibrator::ImportanceOf(
    size_t stream, int tokens, const std::vector<int>& far,
    absl::Span<const double> importance) const {
  // Added to the importance of a token, as a share of the head's mean: a
  // gradient may miss what a token is for.
  constexpr double kLeastShare = 1e-3;
  if (importance.empty()) return std::vector<float>(tokens, NAN);
  std::vector<float> result(tokens, 0.0f);
  for (int head = 0; head < heads_; ++head) {
    const auto of_head =
        importance.subspan((stream * heads_ + head) * tokens, tokens);
    double sum = std::accumulate(of_head.begin(), of_head.end(), 0.0);
    for (const int token : far) sum -= of_head[token];
    const double least = std::max<double>(kLeastShare * sum / tokens, FLT_MIN);
    for (int token = 0; token < tokens; ++token) {
      result[token] +=
          static_cast<float>(std::log2(of_head[token] + least) / heads_);
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
    if (!rows.Load(stream_shape, HeadsOf(kv, stream_shape, stream), &undo)) {
      return absl::InvalidArgumentError("a value of the KV is not finite");
    }
  }
  for (size_t i = 0; i < streams_.size(); ++i) {
    SourceRows rows;
    rows.Load(stream_shape, HeadsOf(kv, stream_shape, i), &undo);
    const std::vector<int> far =
        CentreWithoutFar(rows.values(), dim_, positions).far;
    const std::vector<float> known =
        ImportanceOf(i, shape.tokens, far, importance);
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
  const std::vector<float>& importance = streams_.front().importance;
  const auto known = std::count_if(importance.begin(), importance.end(),
                                   [](float x) { return !std::isnan(x); });
  const bool has_importance = known >= FitRowsMin(dim_);
  const absl::Span<const int> exponents =
      has_importance ? absl::MakeConstSpan(kExponents)
                     : absl::MakeConstSpan(kExponentsAlike);
  StoredCalibration stored;
  stored.model = FingerprintOf(spec_);
  stored.geometry = GeometryOf(spec_);
  stored.joint_heads = heads_;
  // The step from the deviations alone, and then as the sample shows.
  const double bits = options.base_bits - kSideBits;
  double step = StepFor([&](double x) { return BaseBits(spectra, x); }, bits,
                        1e-12, 1e12);
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
  step *= StepFor([&](double x) { return rate.BitsAt(x); }, bits, 1 / kRatioMax,
                  kRatioMax);
  std::vector<std::vector<std::vector<int8_t>>> values;
  for (size_t i = 0; i < streams_.size(); ++i) {
    stored.streams.push_back(
        TransformOf(spectra[i], QuantiserOf(spectra[i], step, exponents[0]),
                    exponents, 2 * heads_));
    stored.streams.back().predictor = predictors[i];
    const auto transform = MakeTransform(stored.streams.back());
    if (!transform.ok()) return transform.status();
    values.push_back(
        ValuesOf(*transform, streams_[i].sample, token_classes[i]));
  }
  ChooseBands(values, &stored);
  return stored;
}

}  // namespace kdn::codec
