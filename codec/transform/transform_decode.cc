#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "codec/kernels/bf16_rows.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/transform/symbol_bands.h"
#include "codec/transform/token_order.h"
#include "codec/transform/transform_codec.h"
#include "codec/transform/transform_frame.h"
#include "codec/transform/transform_stream.h"
#include "kv/check.h"
#include "kv/line_vector.h"

namespace kdn::codec {
namespace {

// The values of one stream while its levels are joined: [row][column], with
// rows in the order of a TokenOrder. Behind them is memory for the rows that
// make the last row of the order the first of a tile.
class Values {
 public:
  Values(const TokenOrder& order, int columns)
      : columns_(columns),
        values_(static_cast<size_t>(order.rows() + kTile - kTokenBlock) *
                columns) {
    std::fill(Row(order.rows()), values_.data() + values_.size(), 0);
  }

  size_t size() const { return values_.size(); }
  int8_t* Row(int row) {
    return values_.data() + static_cast<size_t>(row) * columns_;
  }
  int8_t* data() { return values_.data(); }

 private:
  static constexpr int kTile = SynthesisMatrix::kTileTokens;

  int columns_;
  LineVector<int8_t> values_;
};

// Decodes one level of a stream, band by band of each class. Bands that the
// level does not code become zero. Values become the middles of cells that are
// `cell` of the finest steps wide; if `cell` is 1, they stay as they are coded.
class BandReader {
 public:
  BandReader(const StreamFrame& frame, const StreamContext& context,
             const TokenOrder& order, absl::Span<const std::byte> symbols,
             int cell, Values* values)
      : frame_(frame),
        context_(context),
        order_(order),
        cell_(cell),
        values_(values),
        decoder_(symbols, context.isa),
        symbols_(std::make_unique_for_overwrite<uint8_t[]>(
            static_cast<size_t>(order.rows()) * kBandComponents)) {
    Enter();
  }

  // The steps of the present band that are left; 0 when no band is left.
  size_t steps_left() const { return run_.steps; }
  // The job to decode the next `steps` steps of the band.
  FormatCoder::Job Take(size_t steps) {
    FormatCoder::Run run = run_;
    run.steps = steps;
    return {&decoder_, run, next_};
  }
  // Call this when these steps are decoded.
  void Advance(size_t steps) {
    run_.steps -= steps;
    next_ += steps * FormatCoder::kLanes;
    if (run_.steps > 0) return;
    Unpack(mode());
    ++band_;
    Enter();
  }
  void DecodeRest() {
    while (run_.steps > 0) {
      decoder_.DecodeRun(run_, next_);
      Advance(run_.steps);
    }
  }
  absl::Status Finish() const { return decoder_.Finish(); }

 private:
  const TokenOrder::Run& tokens() const { return order_.runs()[class_]; }
  const std::vector<std::array<BandStep, kLadderSteps>>& bands() const {
    return context_.transform->classes[tokens().token_class].bands;
  }
  const BandStep& band() const { return bands()[band_][frame_.step]; }
  BandMode mode() const { return band().mode; }
  // Goes on to the next band that is coded, from the present one on.
  void Enter() {
    run_.steps = 0;
    for (; class_ < order_.runs().size(); ++class_, band_ = 0) {
      for (; band_ < bands().size(); ++band_) {
        if (mode() != BandMode::kAbsent) {
          run_ = RunOf(band(), context_.tables.data(), tokens().tokens);
          next_ = symbols_.get();
          return;
        }
        Unpack(BandMode::kAbsent);
      }
    }
  }
  void Unpack(BandMode mode) {
    int8_t* values = values_->Row(tokens().first_row) + band_ * kBandComponents;
    const int count = PaddedTokens(tokens().tokens);
    if (cell_ == 1 || mode == BandMode::kAbsent) {
      UnpackBand(mode, symbols_.get(), count, values, frame_.columns);
    } else {
      UnpackToMiddles(mode, symbols_.get(), count, cell_, band().shrink, values,
                      frame_.columns, context_.isa);
    }
  }

  const StreamFrame frame_;
  const StreamContext& context_;
  const TokenOrder& order_;
  const int cell_;
  Values* values_;
  FormatCoder::Decoder decoder_;
  std::unique_ptr<uint8_t[]> symbols_;
  size_t class_ = 0;  // of order_.runs()
  size_t band_ = 0;
  FormatCoder::Run run_;  // the rest of the band
  uint8_t* next_ = nullptr;
};

// Decodes two streams side by side as far as both have bands. That is nearly
// twice as fast, because a step of one stream mostly waits for its table
// entries.
void DecodeBoth(BandReader* a, BandReader* b) {
  while (a->steps_left() > 0 && b->steps_left() > 0) {
    const size_t steps = std::min(a->steps_left(), b->steps_left());
    FormatCoder::Decoder::DecodePair(a->Take(steps), b->Take(steps));
    a->Advance(steps);
    b->Advance(steps);
  }
}

// Moves values of level `step` to the middles of their cells, in the finest
// steps.
void ToFinest(const TokenOrder& order, const StreamTransform& transform,
              int step, Values* values) {
  if (CellOf(step) == 1) return;
  std::vector<int8_t> shrinks(transform.columns());
  for (const TokenOrder::Run& run : order.runs()) {
    const auto& bands = transform.classes[run.token_class].bands;
    for (size_t i = 0; i < bands.size(); ++i) {
      std::fill_n(shrinks.begin() + i * kBandComponents, kBandComponents,
                  static_cast<int8_t>(bands[i][step].shrink));
    }
    for (int row = run.first_row; row < run.first_row + run.tokens; ++row) {
      kernels::ToCellMiddles(shrinks.data(), CellOf(step), shrinks.size(),
                             values->Row(row));
    }
  }
}

// Adds `patch` to a value that has been moved to the middle of its cell, and
// returns the middle of the new cell. The cell of `value` can be found again,
// because a shrink is less than half a cell. This fails for a middle that
// wrapped around, but an encoder patches only zeros.
int8_t PatchedMiddle(int8_t value, int8_t patch, int cell, uint8_t shrink) {
  const auto away = static_cast<int8_t>(shrink);
  const int cells = (value < 0 ? value - away : value + away) / cell;
  auto patched = static_cast<int8_t>(cells + patch);
  kernels::ToCellMiddles(&away, cell, 1, &patched);
  return patched;
}

// The number of values up to the end of the last of these bands that a level up
// to `step` codes.
int UsedValues(absl::Span<const std::array<BandStep, kLadderSteps>> bands,
               int step) {
  size_t used = bands.size();
  const auto is_coded = [&](size_t band) {
    const auto& steps = bands[band];
    return std::any_of(
        steps.begin(), steps.begin() + step + 1,
        [](const BandStep& b) { return b.mode != BandMode::kAbsent; });
  };
  while (used > 0 && !is_coded(used - 1)) --used;
  return static_cast<int>(used) * kBandComponents;
}

// Writes rows, which have all heads side by side, to the destinations of the
// heads.
class RowWriter {
 public:
  RowWriter(const StreamShape& shape, const StreamContext& context,
            absl::Span<const MutableRows> heads)
      : shape_(shape),
        context_(context),
        rotation_(context.rotation),
        heads_(heads),
        row_(static_cast<size_t>(shape.heads) * shape.head_dim),
        stored_(shape.row_bytes()),
        in_one_pass_(shape.dtype == Dtype::kBf16 &&
                     (rotation_ == nullptr ||
                      rotation_->pairing() == RopePairing::kNeoX) &&
                     WritesBf16Rows(
                         shape.head_dim,
                         rotation_ == nullptr ? 0 : rotation_->rotary_dim() / 2,
                         context.isa)) {}
  ~RowWriter() { kernels::FinishCopyOut(); }
  RowWriter(const RowWriter&) = delete;
  RowWriter& operator=(const RowWriter&) = delete;

  // Writes a row that the stream keeps in bf16.
  void WriteKept(int token, const std::byte* bf16) {
    kernels::LoadRow(Dtype::kBf16, bf16, row_.size(), row_.data());
    Write(token, row_.data());
  }

  // Writes a row that is given as integer sums. `scales` has one for each head.
  void WriteSums(int token, const int32_t* sums, const float* scales,
                 const float* mean) {
    if (!in_one_pass_) {
      for (size_t at = 0; at < row_.size(); at += shape_.head_dim) {
        kernels::ScaleAndShift(sums + at, *scales++, mean + at, shape_.head_dim,
                               row_.data() + at);
      }
      return Write(token, row_.data());
    }
    Bf16RowJob job = {.sums = sums, .mean = mean};
    job.head_dim = shape_.head_dim;
    job.streams = !context_.reads_rows;
    if (Turns(token)) {
      job.cos = rotation_->cos(token);
      job.sin = rotation_->sin(token);
      job.pairs = rotation_->rotary_dim() / 2;
    }
    int k_heads = shape_.k_heads();
    for (const MutableRows& head : heads_) {
      if (k_heads-- == 0) job.cos = nullptr;  // V does not turn
      job.scale = *scales++;
      if (head.base != nullptr) {
        WriteBf16Row(job, context_.isa, head.At(token));
      }
      job.sums += shape_.head_dim;
      job.mean += shape_.head_dim;
    }
  }

 private:
  bool Turns(int token) const {
    return rotation_ != nullptr && rotation_->Moves(token);
  }
  // Writes `row`, which it rotates in place.
  void Write(int token, float* row) {
    int k_heads = shape_.k_heads();
    for (const MutableRows& head : heads_) {
      const bool is_k = k_heads-- > 0;
      if (head.base != nullptr) {
        if (is_k && Turns(token)) rotation_->Rotate(token, row);
        kernels::StoreRow(shape_.dtype, row, shape_.head_dim, stored_.data());
        CopyDecoded(context_, stored_, head.At(token));
      }
      row += shape_.head_dim;
    }
  }

  const StreamShape& shape_;
  const StreamContext& context_;
  const RowRotation* rotation_;
  absl::Span<const MutableRows> heads_;
  std::vector<float> row_;
  std::vector<std::byte> stored_;
  bool in_one_pass_;
};

// The number of each token's raw row, or -1.
std::vector<int> RawRows(const StreamFrame& frame, const StreamParts& base) {
  std::vector<int> rows(frame.tokens, -1);
  for (size_t i = 0; i < base.raw_tokens.size(); ++i) {
    rows[base.raw_tokens[i]] = static_cast<int>(i);
  }
  return rows;
}

void WriteValues(const StreamFrame& frame, const StreamContext& context,
                 const StreamParts& base, const TokenOrder& order, int step,
                 int heads, Values* values, RowWriter* writer) {
  const StreamTransform& transform = *context.transform;
  const std::vector<int> raw = RawRows(frame, base);
  LineVector<float> mean(transform.mean.begin(), transform.mean.end());
  if (frame.own_statistics) {
    mean.resize(frame.dim);
    kernels::LoadRow(Dtype::kBf16, base.mean.data(), frame.dim, mean.data());
  }
  const size_t low_bands = transform.components() / kBandComponents;
  std::vector<float> scales(heads);
  for (const TokenOrder::Run& run : order.runs()) {
    const TokenClass& token_class = transform.classes[run.token_class];
    const auto bands = absl::MakeConstSpan(token_class.bands);
    for (size_t head = 0; head < scales.size(); ++head) {
      scales[head] =
          std::ldexp(transform.ScaleOf(head) * base.gain, token_class.exponent);
    }
    const SynthesisMatrix::Values rows = {
        .low = values->Row(run.first_row),
        .stride = frame.columns,
        .used = UsedValues(bands.first(low_bands), step),
        .used_high = UsedValues(bands.subspan(low_bands), step)};
    transform.synthesis.Multiply(
        rows, run.tokens, context.isa, [&](int row, const int32_t* sums) {
          const int token = order.TokenOf(run.first_row + row);
          if (raw[token] >= 0) {
            const size_t at = raw[token] * frame.row_bytes();
            return writer->WriteKept(token, base.raw_rows.data() + at);
          }
          writer->WriteSums(token, sums, scales.data(), mean.data());
        });
  }
}

// The decoding of one stream to rows: Begin and End for each level, then Write.
class StreamDecoding {
 public:
  explicit StreamDecoding(const StreamJob& job)
      : job_(job), frame_(FrameOf(job.shape, *job.context.transform)) {}

  // Begins the next level. Null when the level has no symbols, and after an
  // error: then there is nothing to decode at this level or any further level.
  BandReader* Begin(int step) {
    reader_.reset();
    if (!status_.ok() || rows_ || step >= static_cast<int>(job_.steps.size()) ||
        step > reached_ + 1) {
      return nullptr;
    }
    frame_.step = step;
    StreamReader& stream = job_.steps[step];
    auto parts =
        ReadLevel(frame_, *job_.context.transform,
                  stream.Next(stream.remaining()), base_.token_classes);
    status_ = parts.status();
    if (!parts.ok() || parts->form == StreamForm::kNothing) return nullptr;
    parts_ = *std::move(parts);
    if (step == 0) {
      base_ = parts_;
      rows_ = parts_.form == StreamForm::kRows;
      if (rows_) return nullptr;
      order_.emplace(base_.token_classes);
      values_.emplace(*order_, frame_.columns);
    } else if (!refinements_.has_value()) {
      refinements_.emplace(*order_, frame_.columns);
    }
    // If the base level is the only level, its values are final.
    in_middles_ = job_.steps.size() == 1;
    reader_.emplace(frame_, job_.context, *order_, parts_.symbols,
                    in_middles_ ? CellOf(step) : 1,
                    step == 0 ? &*values_ : &*refinements_);
    return &*reader_;
  }

  // Ends a level, after all bands of the reader from Begin were decoded.
  void End() {
    status_ = reader_->Finish();
    if (!status_.ok()) return;
    reached_ = frame_.step;
    if (reached_ > 0) {
      kernels::RefineByThirds(refinements_->data(), values_->size(),
                              values_->data());
    }
    for (const Patch& patch : parts_.patches) {
      int8_t& value = values_->Row(order_->RowOf(patch.token))[patch.component];
      if (in_middles_) {
        const TokenClass& token_class =
            job_.context.transform->classes[base_.token_classes[patch.token]];
        const auto& band = token_class.bands[patch.component / kBandComponents];
        value = PatchedMiddle(value, patch.value, CellOf(frame_.step),
                              band[frame_.step].shrink);
      } else {
        value = static_cast<int8_t>(value + patch.value);
      }
    }
  }

  // Writes the rows that the levels so far give. More levels may follow.
  absl::Status WriteSoFar() const {
    std::optional<Values> so_far = values_;
    return WriteRows(&so_far);
  }
  // Writes the rows. No level may follow.
  absl::Status Write() { return WriteRows(&values_); }

 private:
  // `values` is empty if the base level has rows.
  absl::Status WriteRows(std::optional<Values>* values) const {
    if (!status_.ok()) return status_;
    RowWriter writer(job_.shape, job_.context, job_.heads);
    if (rows_) {
      for (int token = 0; token < frame_.tokens; ++token) {
        writer.WriteKept(token,
                         base_.raw_rows.data() + token * frame_.row_bytes());
      }
      return absl::OkStatus();
    }
    if (!in_middles_) {
      ToFinest(*order_, *job_.context.transform, reached_, &**values);
    }
    WriteValues(frame_, job_.context, base_, *order_, reached_,
                job_.shape.heads, &**values, &writer);
    return absl::OkStatus();
  }

  const StreamJob& job_;
  StreamFrame frame_;
  absl::Status status_;
  bool rows_ = false;  // the base level has rows instead of symbols
  int reached_ = -1;
  bool in_middles_ = false;  // the values are middles already
  StreamParts base_;
  StreamParts parts_;
  std::optional<TokenOrder> order_;
  std::optional<Values> values_;
  std::optional<Values> refinements_;
  std::optional<BandReader> reader_;
};

}  // namespace

absl::Status TransformCodec::Decode(const StreamShape& shape,
                                    absl::Span<StreamReader> steps,
                                    const StreamContext& context,
                                    absl::Span<const MutableRows> heads) const {
  const StreamJob job{shape, steps, context, heads};
  StreamDecoding stream(job);
  for (int step = 0; step < kLadderSteps; ++step) {
    BandReader* reader = stream.Begin(step);
    if (reader == nullptr) break;
    reader->DecodeRest();
    stream.End();
  }
  return stream.Write();
}

absl::Status TransformCodec::DecodeEach(
    const StreamJob& job, absl::FunctionRef<void(size_t)> at) const {
  StreamDecoding stream(job);
  for (size_t step = 0; step < job.steps.size(); ++step) {
    BandReader* reader = stream.Begin(static_cast<int>(step));
    if (reader != nullptr) {
      reader->DecodeRest();
      stream.End();
    }
    const bool is_last = step + 1 == job.steps.size();
    if (absl::Status s = is_last ? stream.Write() : stream.WriteSoFar();
        !s.ok()) {
      return s;
    }
    at(step);
  }
  return absl::OkStatus();
}

std::array<absl::Status, 2> TransformCodec::DecodeTwo(
    const StreamJob& first, const StreamJob& second) const {
  StreamDecoding a(first);
  StreamDecoding b(second);
  for (int step = 0; step < kLadderSteps; ++step) {
    BandReader* from_a = a.Begin(step);
    BandReader* from_b = b.Begin(step);
    if (from_a != nullptr && from_b != nullptr) DecodeBoth(from_a, from_b);
    if (from_a != nullptr) {
      from_a->DecodeRest();
      a.End();
    }
    if (from_b != nullptr) {
      from_b->DecodeRest();
      b.End();
    }
  }
  return {a.Write(), b.Write()};
}

}  // namespace kdn::codec
