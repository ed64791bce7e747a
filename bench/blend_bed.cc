#include "bench/blend_bed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "bench/own_levels.h"
#include "codec/calibration/calibration.h"
#include "codec/whole_object.h"
#include "kv/dtype.h"
#include "kv/line_vector.h"
#include "model/divergence.h"

namespace kdn::bench {
namespace {

std::vector<int32_t> Positions(int begin, int count) {
  std::vector<int32_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), begin);
  return positions;
}

// Scores that were known before.
class KnownScores : public blend::Selection {
 public:
  explicit KnownScores(std::vector<float> of_tokens)
      : of_tokens_(std::move(of_tokens)) {}
  std::string name() const override { return "oracle"; }
  std::vector<float> Score(const blend::Evidence& evidence) const override {
    std::vector<float> scores;
    for (const int token : evidence.candidates) {
      scores.push_back(of_tokens_[static_cast<size_t>(token)]);
    }
    return scores;
  }

 private:
  std::vector<float> of_tokens_;
};

// The squared distance of a row of V in two caches.
double DistanceOfV(const model::KvCache& a, const model::KvCache& b, int layer,
                   int head, int token) {
  const KvShape& shape = a.view().shape();
  std::vector<float> x(static_cast<size_t>(shape.head_dim));
  std::vector<float> y(x.size());
  LoadFloats(shape.dtype, a.view().At(layer, KvPart::kV, head, token), x.size(),
             x.data());
  LoadFloats(shape.dtype, b.view().At(layer, KvPart::kV, head, token), y.size(),
             y.data());
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return sum;
}

}  // namespace

model::KvCache BlendBed::NewCache() const {
  return model::KvCache(llama_.spec(), room_);
}

model::KvCache BlendBed::CopyOf(const model::KvCache& cache, int tokens) const {
  model::KvCache copy = NewCache();
  const KvShape& shape = copy.view().shape();
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        std::memcpy(copy.view().At(layer, part, head, 0),
                    cache.view().At(layer, part, head, 0),
                    static_cast<size_t>(tokens) * shape.head_bytes());
      }
    }
  }
  copy.Append(absl::MakeConstSpan(cache.positions())
                  .first(static_cast<size_t>(tokens)));
  return copy;
}

absl::StatusOr<double> BlendBed::Prefill(model::KvCache& cache,
                                         absl::Span<const int32_t> tokens) {
  const auto positions =
      Positions(cache.size(), static_cast<int>(tokens.size()));
  model::ForwardPass pass(llama_, cache.workspace());
  if (absl::Status s = pass.Begin(
          {{.cache = &cache, .tokens = tokens, .positions = positions}});
      !s.ok()) {
    return s;
  }
  // As in a blend, the last layer computes KV only.
  const int last = llama_.config().num_layers - 1;
  for (int layer = 0; layer < last; ++layer) pass.RunLayer(layer);
  pass.WriteKv(last);
  return pass.flops();
}

absl::Status BlendBed::Deliver(const model::KvCache& from, int begin, int count,
                               model::KvCache& to, int at) const {
  const KvShape shape = ShapeOf(llama_.spec(), count);
  const auto header = HeaderOf(Level::kLossless, llama_.spec().rope, shape,
                               Positions(begin, count));
  if (!header.ok()) return header.status();
  const auto calibration =
      codec::Calibration::Uncalibrated(codec::GeometryOf(shape));
  LineVector<std::byte> object;
  if (absl::Status s = codec::EncodeWhole(
          *header, calibration, from.view().Tokens(begin, count), object);
      !s.ok()) {
    return s;
  }
  return codec::DecodeWhole(object, Level::kLossless, calibration,
                            Positions(at, count), to.Tokens(at, count));
}

absl::Status BlendBed::AddApart(absl::Span<const int32_t> chunk, int behind,
                                model::KvCache& to, int at) {
  model::KvCache apart = CopyOf(*full_, behind);
  if (const auto flops = Prefill(apart, chunk); !flops.ok()) {
    return flops.status();
  }
  return Deliver(apart, behind, static_cast<int>(chunk.size()), to, at);
}

absl::Status BlendBed::Compose(absl::Span<const int32_t> prefix,
                               absl::Span<const std::vector<int32_t>> chunks,
                               std::vector<BlendItem> items) {
  const auto prefix_tokens = static_cast<int>(prefix.size());
  composition_ = {};
  composition_.tokens.assign(prefix.begin(), prefix.end());
  composition_.prefix = prefix_tokens;
  composition_.parts = {{0, prefix_tokens, true}};
  for (const auto& chunk : chunks) {
    const int begin = tokens();
    composition_.tokens.insert(composition_.tokens.end(), chunk.begin(),
                               chunk.end());
    // The chunk right behind the prefix was prefilled there.
    composition_.parts.push_back({begin, tokens(), begin == prefix_tokens});
  }
  items_ = std::move(items);
  size_t longest = 0;
  for (const BlendItem& item : items_) {
    longest = std::max(longest, item.query.size() + item.after.size());
  }
  room_ = tokens() + static_cast<int>(longest);

  full_ = std::make_unique<model::KvCache>(NewCache());
  if (const auto flops = Prefill(*full_, prefix); !flops.ok()) {
    return flops.status();
  }
  reused_ = std::make_unique<model::KvCache>(CopyOf(*full_, prefix_tokens));
  alone_ = std::make_unique<model::KvCache>(CopyOf(*full_, prefix_tokens));
  reused_->Append(Positions(prefix_tokens, tokens() - prefix_tokens));
  alone_->Append(Positions(prefix_tokens, tokens() - prefix_tokens));
  for (size_t i = 0; i < chunks.size(); ++i) {
    const int at = composition_.parts[i + 1].begin;
    absl::Status status = AddApart(chunks[i], prefix_tokens, *reused_, at);
    status.Update(AddApart(chunks[i], 0, *alone_, at));
    if (!status.ok()) return status;
  }
  const auto flops = Prefill(
      *full_, absl::MakeConstSpan(composition_.tokens).subspan(prefix.size()));
  if (!flops.ok()) return flops.status();
  full_flops_ = *flops;
  exact_.clear();
  for (const BlendItem& item : items_) {
    auto exact = Predict(*full_, item);
    if (!exact.ok()) return exact.status();
    exact_.push_back(*std::move(exact));
  }
  before_.clear();
  for (const BlendItem& item : items_) {
    auto before = blender_.Ask(*reused_, item.query, true);
    if (!before.ok()) return before.status();
    before_.push_back(*std::move(before));
  }
  return absl::OkStatus();
}

absl::StatusOr<BlendBed::Predictions> BlendBed::Predict(model::KvCache& cache,
                                                        const BlendItem& item) {
  auto answer = blender_.Ask(cache, item.query);
  if (!answer.ok()) return answer.status();
  Predictions predictions{std::move(answer->logits), answer->flops};
  if (item.after.empty()) return predictions;
  const int behind = cache.size();
  std::vector<int32_t> tokens = item.query;
  tokens.insert(tokens.end(), item.after.begin(), item.after.end());
  const auto logits = llama_.Prefill(
      cache, tokens, Positions(behind, static_cast<int>(tokens.size())),
      model::LogitRows::kAll);
  if (!logits.ok()) return logits.status();
  cache.Truncate(behind);
  const size_t vocab = predictions.logits.size();
  predictions.logits.insert(predictions.logits.end(),
                            logits->begin() + item.query.size() * vocab,
                            logits->end());
  return predictions;
}

absl::StatusOr<BlendScore> BlendBed::Score(model::KvCache& cache, size_t item,
                                           double flops) {
  const auto predictions = Predict(cache, items_[item]);
  if (!predictions.ok()) return predictions.status();
  const auto vocab = static_cast<size_t>(llama_.config().vocab_size);
  BlendScore score;
  score.kl =
      model::MeanDivergence(exact_[item].logits, predictions->logits, vocab);
  score.flops = flops + predictions->flops;
  const std::vector<int32_t>& candidates = items_[item].candidates;
  if (!candidates.empty()) {
    const auto logits = absl::MakeConstSpan(predictions->logits).first(vocab);
    score.right = *std::max_element(candidates.begin(), candidates.end(),
                                    [&](int32_t a, int32_t b) {
                                      return logits[a] < logits[b];
                                    }) == items_[item].answer;
  }
  return score;
}

absl::StatusOr<std::vector<BlendScore>> BlendBed::ScoreAll(
    model::KvCache& cache, double flops) {
  std::vector<BlendScore> scores;
  for (size_t i = 0; i < items_.size(); ++i) {
    auto score = Score(cache, i, flops);
    if (!score.ok()) return score.status();
    scores.push_back(*score);
  }
  return scores;
}

absl::StatusOr<std::vector<BlendScore>> BlendBed::FullPrefill() {
  return ScoreAll(*full_, full_flops_);
}

absl::StatusOr<std::vector<BlendScore>> BlendBed::Reuse(bool alone) {
  return ScoreAll(alone ? *alone_ : *reused_, 0);
}

absl::StatusOr<std::vector<BlendScore>> BlendBed::Blend(
    const blend::Selection& selection, double ratio) {
  std::vector<BlendScore> scores;
  std::unique_ptr<model::KvCache> cache;
  double flops = 0;
  for (size_t i = 0; i < items_.size(); ++i) {
    // Without the query, one blend serves all items.
    if (cache == nullptr || selection.WantsAttention()) {
      cache = std::make_unique<model::KvCache>(CopyOf(*reused_, tokens()));
      const auto blended = blender_.Blend(
          composition_, *cache, before_[i].attention, selection, ratio);
      if (!blended.ok()) return blended.status();
      flops = blended->flops;
      if (selection.WantsAttention()) flops += before_[i].flops;
    }
    auto score = Score(*cache, i, flops);
    if (!score.ok()) return score.status();
    scores.push_back(*score);
  }
  return scores;
}

std::unique_ptr<blend::Selection> BlendBed::Oracle() const {
  const KvShape& shape = full_->view().shape();
  std::vector<float> scores(static_cast<size_t>(tokens()));
  for (int layer = 0; layer < shape.layers; ++layer) {
    std::vector<double> distances(scores.size());
    for (size_t token = 0; token < scores.size(); ++token) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        distances[token] +=
            DistanceOfV(*full_, *reused_, layer, head, static_cast<int>(token));
      }
    }
    // Layers differ in the lengths of their rows.
    const double sum =
        std::accumulate(distances.begin(), distances.end(), 1e-30);
    for (size_t token = 0; token < scores.size(); ++token) {
      scores[token] += static_cast<float>(distances[token] / sum);
    }
  }
  return std::make_unique<KnownScores>(std::move(scores));
}

}  // namespace kdn::bench
