#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "codec/kernels/bf16_rows.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/transform/symbol_bands.h"
#include "codec/transform/transform_codec.h"
#include "codec/transform/transform_frame.h"
#include "codec/transform/transform_stream.h"
#include "kv/check.h"
#include "kv/line_vector.h"

namespace kdn::codec {
namespace {

// The values of one stream while its levels are joined: [token][component],
// with tokens padded to a multiple of kTile.
class Values {
 public:
  explicit Values(const StreamFrame& frame)
      : components_(frame.components),
        tokens_((frame.tokens + kTile - 1) / kTile * kTile),
        values_(static_cast<size_t>(tokens_) * components_) {
    const int coded = PaddedTokens(frame.tokens);
    std::fill(Row(coded), Row(tokens_), 0);
  }

  size_t size() const { return values_.size(); }
  int8_t* data() { return values_.data(); }
  int8_t* Row(int token) {
    return values_.data() + static_cast<size_t>(token) * components_;
  }

 private:
  static constexpr int kTile = SynthesisMatrix::kTileTokens;

  int components_;
  int tokens_;
  LineVector<int8_t> values_;
};

// Decodes one level of a stream, band by band. Bands that the level does not
// code become zero. Values become the middles of cells that are `cell` of the
// finest steps wide; if `cell` is 1, they stay as they are coded.
class BandReader {
 public:
  BandReader(const StreamFrame& frame, const StreamContext& context,
             absl::Span<const std::byte> symbols, int cell, Values* values)
      : frame_(frame),
        context_(context),
        cell_(cell),
        values_(values),
        decoder_(symbols, context.isa),
        symbols_(std::make_unique_for_overwrite<uint8_t[]>(
            static_cast<size_t>(PaddedTokens(frame.tokens)) *
            kBandComponents)) {
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
  const BandStep& band() const {
    return context_.transform->bands[band_][frame_.step];
  }
  BandMode mode() const { return band().mode; }
  void Enter() {
    run_.steps = 0;
    for (; band_ < context_.transform->bands.size(); ++band_) {
      if (mode() != BandMode::kAbsent) {
        run_ = RunOf(band(), context_.tables.data(), frame_.tokens);
        next_ = symbols_.get();
        return;
      }
      Unpack(BandMode::kAbsent);
    }
  }
  void Unpack(BandMode mode) {
    int8_t* values = values_->data() + band_ * kBandComponents;
    const int tokens = PaddedTokens(frame_.tokens);
    if (cell_ == 1 || mode == BandMode::kAbsent) {
      UnpackBand(mode, symbols_.get(), tokens, values, frame_.components);
    } else {
      UnpackToMiddles(mode, symbols_.get(), tokens, cell_, band().shrink,
                      values, frame_.components, context_.isa);
    }
  }

  const StreamFrame frame_;
  const StreamContext& context_;
  const int cell_;
  Values* values_;
  FormatCoder::Decoder decoder_;
  std::unique_ptr<uint8_t[]> symbols_;
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
void ToFinest(const StreamFrame& frame, const StreamTransform& transform,
              int step, Values* values) {
  if (CellOf(step) == 1) return;
  std::vector<int8_t> shrinks(frame.components);
  for (size_t i = 0; i < transform.bands.size(); ++i) {
    std::fill_n(shrinks.begin() + i * kBandComponents, kBandComponents,
                static_cast<int8_t>(transform.bands[i][step].shrink));
  }
  for (int token = 0; token < frame.tokens; ++token) {
    kernels::ToCellMiddles(shrinks.data(), CellOf(step), frame.components,
                           values->Row(token));
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

// The number of components up to the end of the last band that a level up to
// `step` codes.
int UsedComponents(const StreamTransform& transform, int step) {
  size_t used = transform.bands.size();
  const auto is_coded = [&](size_t band) {
    const auto& steps = transform.bands[band];
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

  // Writes a row that is given as integer sums.
  void WriteSums(int token, const int32_t* sums, float scale,
                 const float* mean) {
    if (!in_one_pass_) {
      kernels::ScaleAndShift(sums, scale, mean, row_.size(), row_.data());
      return Write(token, row_.data());
    }
    Bf16RowJob job = {.sums = sums, .scale = scale, .mean = mean};
    job.head_dim = shape_.head_dim;
    job.streams = !context_.reads_rows;
    if (Turns(token)) {
      job.cos = rotation_->cos(token);
      job.sin = rotation_->sin(token);
      job.pairs = rotation_->rotary_dim() / 2;
    }
    for (const MutableRows& head : heads_) {
      if (head.base != nullptr) WriteBf16Row(job, head.At(token));
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
    for (const MutableRows& head : heads_) {
      if (head.base != nullptr) {
        if (Turns(token)) rotation_->Rotate(token, row);
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

void WriteValues(const StreamFrame& frame, const StreamContext& context,
                 const StreamParts& base, int step, Values* values,
                 RowWriter* writer) {
  const StreamTransform& transform = *context.transform;
  const SynthesisMatrix& synthesis = transform.synthesis;
  const int used = UsedComponents(transform, step);
  LineVector<float> mean(transform.mean.begin(), transform.mean.end());
  if (frame.own_statistics) {
    mean.resize(frame.dim);
    kernels::LoadRow(Dtype::kBf16, base.mean.data(), frame.dim, mean.data());
  }
  const float scale = transform.scale * base.gain;
  size_t raw = 0;
  synthesis.Multiply(
      values->data(), frame.tokens, used, context.isa,
      [&](int token, const int32_t* sums) {
        if (raw < base.raw_tokens.size() && base.raw_tokens[raw] == token) {
          const size_t at = raw++ * frame.row_bytes();
          return writer->WriteKept(token, base.raw_rows.data() + at);
        }
        writer->WriteSums(token, sums, scale, mean.data());
      });
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
    auto parts = ReadLevel(frame_, *job_.context.transform,
                           stream.Next(stream.remaining()));
    status_ = parts.status();
    if (!parts.ok() || parts->form == StreamForm::kNothing) return nullptr;
    parts_ = *std::move(parts);
    if (step == 0) {
      base_ = parts_;
      rows_ = parts_.form == StreamForm::kRows;
      if (rows_) return nullptr;
      values_.emplace(frame_);
    } else if (!refinements_.has_value()) {
      refinements_.emplace(frame_);
    }
    // If the base level is the only level, its values are final.
    in_middles_ = job_.steps.size() == 1;
    reader_.emplace(frame_, job_.context, parts_.symbols,
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
      int8_t& value = values_->Row(patch.token)[patch.component];
      if (in_middles_) {
        const auto& band =
            job_.context.transform->bands[patch.component / kBandComponents];
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
      ToFinest(frame_, *job_.context.transform, reached_, &**values);
    }
    WriteValues(frame_, job_.context, base_, reached_, &**values, &writer);
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
