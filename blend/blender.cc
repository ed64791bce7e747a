#include "blend/blender.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kv/dtype.h"

namespace kdn::blend {
namespace {

// Adds up the attention of all layers.
class AttentionSum : public model::PassObserver {
 public:
  bool WantsMass(int /*layer*/) const override { return true; }
  void OnMass(int /*layer*/, int /*sequence*/,
              absl::Span<const float> mass) override {
    sum_.resize(mass.size());
    for (size_t i = 0; i < mass.size(); ++i) sum_[i] += mass[i];
  }
  std::vector<float> Take() && { return std::move(sum_); }

 private:
  std::vector<float> sum_;
};

// Keeps the deviations that a pass tells.
class Deviations : public model::PassObserver {
 public:
  bool WantsDeviation(int /*layer*/) const override { return true; }
  void OnDeviation(int /*layer*/, absl::Span<const float> k,
                   absl::Span<const float> v) override {
    k_.assign(k.begin(), k.end());
    v_.assign(v.begin(), v.end());
  }
  std::vector<float>& of(KvPart part) { return part == KvPart::kK ? k_ : v_; }

 private:
  std::vector<float> k_;
  std::vector<float> v_;
};

// The mean over `rows` of the squared length of a row of all heads.
float MeanSquaredLength(const KvView& layer, KvPart part,
                        absl::Span<const int> rows) {
  const KvShape& shape = layer.shape();
  std::vector<float> row(static_cast<size_t>(shape.head_dim));
  double sum = 0;
  for (const int token : rows) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      LoadFloats(shape.dtype, layer.At(0, part, head, token), row.size(),
                 row.data());
      for (const float x : row) sum += double{x} * x;
    }
  }
  return static_cast<float>(sum / static_cast<double>(rows.size()));
}

// The tokens of a composition that a pass computes in their slots.
class Rows {
 public:
  Rows(const Composition& composition, model::KvCache& cache,
       absl::Span<const int> rows)
      : cache_(cache), slots_(rows.begin(), rows.end()) {
    for (const int row : rows) tokens_.push_back(composition.tokens[row]);
  }
  model::Sequence sequence() const {
    return {.cache = &cache_,
            .tokens = tokens_,
            .positions = slots_,
            .slots = slots_};
  }

 private:
  model::KvCache& cache_;
  std::vector<int32_t> slots_;
  std::vector<int32_t> tokens_;
};

}  // namespace

absl::StatusOr<QueryAnswer> Blender::Ask(model::KvCache& cache,
                                         absl::Span<const int32_t> query,
                                         bool wants_attention) {
  const int behind = cache.size();
  std::vector<int32_t> positions(query.size());
  std::iota(positions.begin(), positions.end(), behind);
  model::ForwardPass pass(llama_, workspace_);
  if (absl::Status s = pass.Begin(
          {{.cache = &cache, .tokens = query, .positions = positions}});
      !s.ok()) {
    return s;
  }
  AttentionSum sum;
  for (int layer = 0; layer < llama_.config().num_layers; ++layer) {
    pass.RunLayer(layer, wants_attention ? &sum : nullptr);
  }
  QueryAnswer answer;
  answer.logits.resize(static_cast<size_t>(llama_.config().vocab_size));
  pass.Logits({static_cast<int>(query.size()) - 1},
              absl::MakeSpan(answer.logits));
  answer.flops = pass.flops();
  cache.Truncate(behind);
  if (wants_attention) {
    answer.attention = std::move(sum).Take();
    answer.attention.resize(static_cast<size_t>(behind));
  }
  return answer;
}

absl::Status Blender::Check(const Composition& composition,
                            const model::KvCache& cache,
                            absl::Span<const float> attention,
                            const Selection& selection, double ratio) const {
  if (absl::Status s = composition.Validate(); !s.ok()) return s;
  if (!(ratio >= 0 && ratio <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ratio of ", ratio, ", which is not in [0, 1]"));
  }
  if (selection.check_layer() >= llama_.config().num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("check layer ", selection.check_layer(), " of a model of ",
                     llama_.config().num_layers, " layers"));
  }
  if (selection.WantsAttention() &&
      attention.size() != composition.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        selection.name(), " wants the query's attention to each of ",
        composition.tokens.size(), " tokens, and has it of ",
        attention.size()));
  }
  const std::vector<int32_t>& positions = cache.positions();
  if (positions.size() != composition.tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the cache has ", positions.size(),
                     " tokens, the composition ", composition.tokens.size()));
  }
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] != static_cast<int32_t>(i)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token ", i, " of the cache is at position ", positions[i]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Blended> Blender::Blend(const Composition& composition,
                                       model::KvCache& cache,
                                       absl::Span<const float> attention,
                                       const Selection& selection,
                                       double ratio) {
  if (absl::Status s = Check(composition, cache, attention, selection, ratio);
      !s.ok()) {
    return s;
  }
  const auto count = static_cast<int>(
      std::lround(ratio * static_cast<double>(composition.tokens.size() -
                                              composition.prefix)));
  if (count == 0 || composition.parts.back().exact) return Blended{};
  return Recompute(composition, cache, attention, selection, count);
}

absl::StatusOr<Blended> Blender::Recompute(const Composition& composition,
                                           model::KvCache& cache,
                                           absl::Span<const float> attention,
                                           const Selection& selection,
                                           int count) {
  const std::vector<int> candidates = composition.Inexact();
  Evidence evidence{.composition = composition,
                    .candidates = candidates,
                    .attention = attention,
                    .k_deviation = {},
                    .v_deviation = {}};
  const int check = selection.check_layer();
  const bool all = count >= static_cast<int>(candidates.size());
  Blended blended;
  if (all) {
    blended.rows = candidates;
  } else if (check < 0) {
    blended.rows = Highest(candidates, selection.Score(evidence), count);
  }
  const Rows rows(composition, cache,
                  blended.rows.empty() ? candidates : blended.rows);
  model::ForwardPass pass(llama_, workspace_);
  if (absl::Status s = pass.Begin({rows.sequence()}); !s.ok()) return s;
  if (blended.rows.empty()) {
    for (int layer = 0; layer < check; ++layer) pass.RunLayer(layer);
    Deviations deviations;
    pass.WriteKv(check, &deviations);
    const KvView layer = KvView(cache.view()).Layer(check);
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      const float length = MeanSquaredLength(layer, part, candidates);
      for (float& x : deviations.of(part)) x = length > 0 ? x / length : 0;
    }
    evidence.k_deviation = deviations.of(KvPart::kK);
    evidence.v_deviation = deviations.of(KvPart::kV);
    blended.rows = Highest(candidates, selection.Score(evidence), count);
    std::vector<int> kept;
    for (const int row : blended.rows) {
      const auto at =
          std::lower_bound(candidates.begin(), candidates.end(), row);
      kept.push_back(static_cast<int>(at - candidates.begin()));
    }
    pass.Keep(kept);
    blended.first_layer = check;
  }
  // What the last layer computes besides KV is not needed.
  const int last = llama_.config().num_layers - 1;
  for (int layer = blended.first_layer; layer < last; ++layer) {
    pass.RunLayer(layer);
  }
  pass.WriteKv(last);
  blended.flops = pass.flops();
  return blended;
}

}  // namespace kdn::blend
