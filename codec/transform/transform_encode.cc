#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "codec/entropy/value_distribution.h"
#include "codec/kernels/source_rows.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/transform/component_rounding.h"
#include "codec/transform/raw_tokens.h"
#include "codec/transform/step_predictor.h"
#include "codec/transform/symbol_bands.h"
#include "codec/transform/token_order.h"
#include "codec/transform/transform_codec.h"
#include "codec/transform/transform_frame.h"
#include "codec/transform/transform_stream.h"
#include "kv/check.h"
#include "kv/line_vector.h"

namespace kdn::codec {
namespace {

// The standard deviation to which an uncalibrated stream's components are
// scaled, in the finest steps.
constexpr double kOwnDeviation = 10.0;

size_t RowsFormBytes(const StreamShape& shape) {
  return 1 + 2 * shape.values();
}

// Rounds a row to bf16. A value that would be rounded up past the largest value
// of `dtype` becomes the largest bf16 that `dtype` can hold.
void StoreBf16(const float* row, size_t count, std::byte* out,
               Dtype dtype = Dtype::kBf16) {
  const auto most =
      static_cast<uint16_t>(std::bit_cast<uint32_t>(LargestOf(dtype)) >> 16);
  kernels::StoreRow(Dtype::kBf16, row, count, out);
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, out + 2 * i, 2);
    const auto sign = static_cast<uint16_t>(bits & 0x8000u);
    bits = std::min(static_cast<uint16_t>(bits & 0x7fffu), most) | sign;
    std::memcpy(out + 2 * i, &bits, 2);
  }
}

// A quantised stream. All levels of the stream are written from it.
struct Quantised {
  float gain = 1.0f;
  std::vector<std::byte> mean;
  std::vector<uint16_t> raw_tokens;
  std::vector<std::byte> raw_rows;
  std::vector<uint8_t> token_classes;
  std::optional<TokenOrder> order;
  // The values of the finest level, [row of `order`][column].
  LineVector<int8_t> finest;
};

void KeepRaw(const StreamFrame& frame, int token, const SourceRows& rows,
             Quantised* out) {
  out->raw_tokens.push_back(static_cast<uint16_t>(token));
  out->raw_rows.resize(out->raw_rows.size() + frame.row_bytes());
  StoreBf16(rows.Row(token), frame.dim,
            out->raw_rows.data() + out->raw_rows.size() - frame.row_bytes(),
            rows.dtype());
}

bool IsIn(const std::vector<int>& tokens, int token) {
  return std::binary_search(tokens.begin(), tokens.end(), token);
}

// Computes the stream's own statistics: rounds the mean to bf16, and derives
// the gain from the rows that are not far.
void TakeStatistics(const StreamFrame& frame, const SourceRows& rows,
                    CentredRows* centred, Quantised* out) {
  std::vector<float>& mean = centred->mean;
  out->mean.resize(frame.row_bytes());
  StoreBf16(mean.data(), mean.size(), out->mean.data());
  kernels::LoadRow(Dtype::kBf16, out->mean.data(), mean.size(), mean.data());
  kernels::Differences differences;
  for (int token = 0; token < frame.tokens; ++token) {
    if (IsIn(centred->far, token)) continue;
    kernels::AddDifferences(rows.Row(token), mean.data(), mean.size(),
                            &differences);
  }
  const double count = frame.tokens - static_cast<double>(centred->far.size());
  const double deviation =
      std::sqrt(differences.sum_of_squares() / frame.dim / count);
  out->gain = std::clamp(static_cast<float>(deviation / kOwnDeviation), FLT_MIN,
                         FLT_MAX);
}

// The largest magnitude that a value may have in a row that is coded. Rows up
// to this magnitude decode, at every level, to values and to differences from
// the mean that are inside the range of `dtype`. Negative when no row may be
// coded.
float LargestCoded(const StreamTransform& transform,
                   const TokenClass& token_class, float gain,
                   absl::Span<const float> mean, Dtype dtype) {
  const bool has_absent = std::any_of(
      token_class.bands.begin(), token_class.bands.end(),
      [](const auto& band) { return band[0].mode == BandMode::kAbsent; });
  // A value is off by less than a cell: by half a cell of rounding and less
  // than half a cell of shrink. In a band that is not coded it is off by at
  // most its own magnitude. The analysis adds an error in proportion to the
  // largest difference from the mean. This assumes the worst of both matrices
  // at once, so that fp16 rows beyond a half or a third of the range are kept
  // raw.
  const double error = has_absent ? kValueMax + 0.5 : CellOf(0);
  float scale = transform.scale;
  if (!transform.head_scales.empty()) {
    scale = *std::max_element(transform.head_scales.begin(),
                              transform.head_scales.end());
  }
  const double spread =
      std::ldexp(scale * transform.synthesis.norm(), token_class.exponent);
  const double far = error * spread * gain;
  const double rounding =
      AnalysisMatrix::kRounding * spread * transform.analysis.norm();
  const float most_mean =
      std::bit_cast<float>(kernels::MaxAbsBits(mean.data(), mean.size()));
  constexpr double kRoom = 0.99;  // for the decoder's rounding
  return static_cast<float>((kRoom * LargestOf(dtype) - far) / (1 + rounding) -
                            most_mean);
}

// Rounds the components of a token to values. False when one is out of range,
// or is a high part that the token's class does not code.
bool RoundRow(const StreamTransform& transform, const TokenClass& token_class,
              const float* components, int8_t* values) {
  if (!RoundComponents(transform, components, values)) return false;
  for (int i = transform.components() / kBandComponents;
       i * kBandComponents < transform.columns(); ++i) {
    if (token_class.bands[i][0].mode != BandMode::kAbsent) continue;
    const int8_t* const high = values + i * kBandComponents;
    if (std::any_of(high, high + kBandComponents,
                    [](int8_t v) { return v != 0; })) {
      return false;
    }
  }
  return true;
}

// Rounds the components of rows to integers. A token is kept raw, and its
// values are zero, if it is far, if a component is out of range, or if a
// decoded value might be outside the dtype's range.
void RoundRows(const StreamFrame& frame, const StreamTransform& transform,
               const CentredRows& centred, const SourceRows& rows,
               Quantised* out) {
  constexpr int kTokens = 32;
  LineVector<float> moved(static_cast<size_t>(kTokens) * frame.dim, 0.0f);
  LineVector<float> components(static_cast<size_t>(kTokens) * frame.components);
  std::vector<float> largest_coded;
  for (const TokenClass& token_class : transform.classes) {
    largest_coded.push_back(LargestCoded(transform, token_class, out->gain,
                                         centred.mean, rows.dtype()));
  }
  const auto class_of = [out](int token) { return out->token_classes[token]; };
  for (int begin = 0; begin < frame.tokens; begin += kTokens) {
    const int count = std::min(kTokens, frame.tokens - begin);
    for (int t = 0; t < count; ++t) {
      const int exponent = transform.classes[class_of(begin + t)].exponent;
      kernels::Centre(rows.Row(begin + t), centred.mean.data(),
                      std::ldexp(1.0f / out->gain, -exponent), frame.dim,
                      moved.data() + static_cast<size_t>(t) * frame.dim);
    }
    transform.analysis.Apply(moved.data(), kTokens, components.data(),
                             BestIsa());
    for (int t = 0; t < count; ++t) {
      const int token = begin + t;
      int8_t* values =
          out->finest.data() +
          static_cast<size_t>(out->order->RowOf(token)) * frame.columns;
      if (!IsIn(centred.far, token) &&
          rows.Largest(token) <= largest_coded[class_of(token)] &&
          RoundRow(
              transform, transform.classes[class_of(token)],
              components.data() + static_cast<size_t>(t) * frame.components,
              values)) {
        continue;
      }
      std::fill_n(values, frame.columns, 0);
      KeepRaw(frame, token, rows, out);
    }
  }
}

// The class of each token, from the sizes of steps that the predictor gives.
// Far tokens, which are kept raw, are of the last class, where zeros take the
// fewest bits.
std::vector<uint8_t> ClassesOf(const StreamFrame& frame,
                               const StreamContext& context,
                               const CentredRows& centred,
                               const SourceRows& rows) {
  const std::vector<TokenClass>& classes = context.transform->classes;
  std::vector<uint8_t> chosen(frame.tokens, 0);
  if (classes.size() == 1) return chosen;
  const int first = context.coarser;
  const int count = BaseClasses(classes);
  KDN_CHECK(first <= kCoarserMax && count > 0, "a calibration has the classes");
  std::vector<float> wanted(frame.tokens, static_cast<float>(count - 1));
  for (int token = 0; token < frame.tokens; ++token) {
    if (IsIn(centred.far, token)) continue;
    wanted[token] = WantedClass(classes, context.transform->predictor,
                                rows.Row(token), centred.mean);
  }
  chosen = RoundClasses(wanted);
  for (uint8_t& token_class : chosen) {
    token_class = static_cast<uint8_t>(token_class + first);
  }
  return chosen;
}

void Quantise(const StreamFrame& frame, const StreamContext& context,
              const SourceRows& rows, Quantised* out) {
  const StreamTransform& transform = *context.transform;
  CentredRows centred;
  if (frame.own_statistics) {
    centred = CentreWithoutFar(rows.values(), frame.dim, context.positions);
    TakeStatistics(frame, rows, &centred, out);
  } else {
    centred.mean = transform.mean;
    centred.far = FarTokens(rows.values(), centred.mean, context.positions);
  }
  out->token_classes = ClassesOf(frame, context, centred, rows);
  out->order.emplace(out->token_classes);
  out->finest.assign(static_cast<size_t>(out->order->rows()) * frame.columns,
                     0);
  RoundRows(frame, transform, centred, rows, out);
}

// Writes the levels of one stream, in ascending order: each codes the
// difference to the level before.
class StepWriter {
 public:
  StepWriter(StreamFrame frame, const StreamContext& context,
             const Quantised& source)
      : frame_(frame),
        context_(context),
        source_(source),
        now_(source.finest.size()),
        decoded_(source.finest.size(), 0),
        symbols_(source.finest.size()) {}

  // The level's bytes, valid until the next call; empty when they would be more
  // than `bytes_max`.
  absl::Span<const std::byte> Write(int step, size_t bytes_max) {
    frame_.step = step;
    kernels::Coarsen(source_.finest.data(), now_.size(),
                     kLadderSteps - 1 - step, now_.data());
    FormatCoder::Encoder encoder;
    parts_ = StreamParts();
    uint8_t* symbols = symbols_.data();
    for (const TokenOrder::Run& tokens : source_.order->runs()) {
      tokens_ = tokens;
      const auto& bands = context_.transform->classes[tokens.token_class].bands;
      for (size_t i = 0; i < bands.size(); ++i) {
        const BandStep& band = bands[i][step];
        if (band.mode == BandMode::kAbsent) {
          SkipBand(i);
          continue;
        }
        const FormatCoder::Run run =
            RunOf(band, context_.tables.data(), tokens.tokens);
        CodeBand(i, band, symbols);
        encoder.AddRun(run, symbols);
        symbols += run.symbols();
      }
    }
    std::swap(now_, decoded_);
    if (step == 0) {
      parts_.gain = source_.gain;
      parts_.mean = source_.mean;
      parts_.raw_tokens = source_.raw_tokens;
      parts_.raw_rows = source_.raw_rows;
      parts_.token_classes = source_.token_classes;
    }
    const size_t parts_bytes =
        PartsBytes(frame_, parts_.raw_tokens.size(), parts_.patches.size());
    if (parts_bytes > bytes_max) return {};
    const size_t most = parts_bytes + encoder.BytesMax();
    out_ = std::make_unique_for_overwrite<std::byte[]>(most);
    const absl::Span<std::byte> out(out_.get(), most);
    KDN_CHECK(WriteParts(frame_, parts_, out) == parts_bytes,
              "the size of the parts is known");
    const size_t bytes = parts_bytes + encoder.Finish(out.subspan(parts_bytes));
    if (bytes > bytes_max) return {};
    return out.first(bytes);
  }

 private:
  using Limits = std::array<int8_t, kBandComponents>;

  // The index of the first value of a band, of a row of the present class.
  size_t At(size_t band, int row) const {
    return static_cast<size_t>(tokens_.first_row + row) * frame_.columns +
           band * kBandComponents;
  }

  // Gives the level the values that a decoder computes without a refinement.
  void SkipBand(size_t band) {
    for (int row = 0; row < tokens_.tokens; ++row) {
      const size_t at = At(band, row);
      int8_t values[kBandComponents];
      std::copy_n(decoded_.data() + at, kBandComponents, values);
      for (int8_t& value : values) value = static_cast<int8_t>(3 * value);
      std::copy_n(values, kBandComponents, now_.data() + at);
    }
  }

  const FormatCoder::Table& TableOf(const BandStep& step, int half) const {
    return context_.tables[step.tables[half]];
  }

  void CodeBand(size_t band, const BandStep& step, uint8_t* symbols) {
    const int rows = PaddedTokens(tokens_.tokens);
    const int per_token = SymbolsPerToken(step.mode);
    // Refinements within `sure` have symbols that the table codes. Refinements
    // within `most` have symbols, which the table may lack.
    Limits sure;
    Limits most;
    most.fill(static_cast<int8_t>(LargestValue(step.mode)));
    constexpr int kHalf = kBandComponents / 2;
    for (int half = 0; half < 2; ++half) {
      const int most_sure = SurelyCoded(step.mode, TableOf(step, half));
      std::fill_n(sure.begin() + half * kHalf, kHalf,
                  static_cast<int8_t>(most_sure));
    }
    const auto pack = [&](int row, int count, const Limits& limits) {
      const size_t at = At(band, row);
      return PackRefinements(step.mode,
                             {.now = now_.data() + at,
                              .before = decoded_.data() + at,
                              .stride = static_cast<size_t>(frame_.columns),
                              .tokens = count},
                             limits.data(), symbols + row * per_token);
    };
    for (int row = 0; row < rows; ++row) {
      row += pack(row, rows - row, sure);
      if (row == rows) return;
      uint8_t* at = symbols + row * per_token;
      if (pack(row, 1, most) == 0 || !AllCoded(step, at)) {
        CodeApart(band, step, row, at);
      }
    }
  }

  // Whether the tables code all of a token's symbols.
  bool AllCoded(const BandStep& step, const uint8_t* symbols) const {
    const int half = SymbolsPerToken(step.mode) / 2;
    bool all = true;
    for (int i = 0; i < half; ++i) {
      all &= TableOf(step, 0).frequency(symbols[i]) != 0;
      all &= TableOf(step, 1).frequency(symbols[i + half]) != 0;
    }
    return all;
  }

  // Codes a token symbol by symbol, with patches for values that have no
  // symbol.
  void CodeApart(size_t band, const BandStep& step, int row, uint8_t* symbols) {
    const int per_symbol = ValuesPerSymbol(step.mode);
    const int largest = LargestValue(step.mode);
    for (int c = 0; c < kBandComponents; c += per_symbol, ++symbols) {
      int8_t values[4];
      bool fits = true;
      for (int i = 0; i < per_symbol; ++i) {
        const size_t at = At(band, row) + c + i;
        const int value = Refinement(now_[at], decoded_[at]);
        fits = fits && value >= -largest && value <= largest;
        values[i] = static_cast<int8_t>(value);
      }
      const FormatCoder::Table& table =
          TableOf(step, c < kBandComponents / 2 ? 0 : 1);
      *symbols = fits ? SymbolOf(step.mode, values) : 0;
      if (fits && table.frequency(*symbols) > 0) continue;
      *symbols = ZeroSymbol(step.mode);
      AddPatches(band, row, c, per_symbol);
    }
  }

  void AddPatches(size_t band, int row, int begin, int count) {
    const int token = source_.order->TokenOf(tokens_.first_row + row);
    for (int c = begin; c < begin + count; ++c) {
      const size_t at = At(band, row) + c;
      const int difference = now_[at] - 3 * decoded_[at];
      if (difference == 0) continue;
      parts_.patches.push_back(
          {static_cast<uint16_t>(token),
           static_cast<uint16_t>(band * kBandComponents + c),
           static_cast<int8_t>(difference)});
    }
  }

  StreamFrame frame_;
  const StreamContext& context_;
  const Quantised& source_;
  StreamParts parts_;
  TokenOrder::Run tokens_;      // the class that is being coded
  LineVector<int8_t> now_;      // values of the level, as decoded
  LineVector<int8_t> decoded_;  // values of the level before
  LineVector<uint8_t> symbols_;
  std::unique_ptr<std::byte[]> out_;
};

void Put(absl::Span<const std::byte> bytes, StreamRoom* room) {
  KDN_CHECK(room->room.size() >= bytes.size(), "no room for the stream");
  std::memcpy(room->room.data(), bytes.data(), bytes.size());
  room->bytes = bytes.size();
}

void PutRows(const StreamFrame& frame, const SourceRows& rows,
             StreamRoom* room) {
  StreamParts parts;
  parts.form = StreamForm::kRows;
  std::vector<std::byte> bf16(frame.tokens * frame.row_bytes());
  for (int token = 0; token < frame.tokens; ++token) {
    StoreBf16(rows.Row(token), frame.dim,
              bf16.data() + token * frame.row_bytes(), rows.dtype());
  }
  parts.raw_rows = bf16;
  room->bytes = WriteParts(frame, parts, room->room);
}

}  // namespace

size_t TransformCodec::BytesMax(const StreamShape& shape, Level level) const {
  // A refinement takes about 1.6 bits per value. The bound is 4 bits, for
  // patches and symbols, and kAround bytes.
  constexpr size_t kAround = 256;
  if (shape.heads == 0) return 0;
  return LadderTo(level).front() == level ? RowsFormBytes(shape)
                                          : kAround + shape.values() / 2;
}

bool TransformCodec::MayHaveBytes(const StreamShape& shape, Level level,
                                  uint32_t bytes) const {
  if (shape.heads == 0) return bytes == 0;
  return bytes >= 1 && bytes <= BytesMax(shape, level);
}

absl::Status TransformCodec::Encode(const StreamShape& shape,
                                    absl::Span<const Rows> heads,
                                    const StreamContext& context,
                                    absl::Span<StreamRoom> steps) const {
  StreamFrame frame = FrameOf(shape, *context.transform);
  SourceRows rows;
  if (!rows.Load(shape, heads, context.rotation)) {
    return absl::InvalidArgumentError(
        "a value is not finite before RoPE; only lossless can hold it");
  }
  Quantised quantised;
  Quantise(frame, context, rows, &quantised);
  StepWriter writer(frame, context, quantised);
  bool goes_on = true;
  for (int step = 0; step < static_cast<int>(steps.size()); ++step) {
    const size_t bytes_max =
        BytesMax(shape, step == 0 ? Level::kBase : Level::kBase1);
    absl::Span<const std::byte> bytes;
    if (goes_on) bytes = writer.Write(step, bytes_max);
    if (!bytes.empty()) {
      Put(bytes, &steps[step]);
      continue;
    }
    goes_on = false;
    if (step == 0) {
      PutRows(frame, rows, &steps[step]);
    } else {
      constexpr std::byte kNothing{static_cast<uint8_t>(StreamForm::kNothing)};
      Put({&kNothing, 1}, &steps[step]);
    }
  }
  return absl::OkStatus();
}

}  // namespace kdn::codec
