#include "bench/quality.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "model/divergence.h"

namespace kdn::bench {
namespace {

// The most tokens of a continuation that a cache has room for.
size_t LongestOf(const Context& context) {
  size_t most = 0;
  for (const Continuation& c : context.continuations) {
    most = std::max(most, c.tokens.size());
  }
  return most;
}

std::vector<int32_t> Positions(int begin, size_t count) {
  std::vector<int32_t> positions(count);
  std::iota(positions.begin(), positions.end(), begin);
  return positions;
}

absl::Span<const float> RowOf(const std::vector<float>& logits, size_t rows,
                              size_t row) {
  const size_t vocab = logits.size() / rows;
  return absl::MakeConstSpan(logits).subspan(row * vocab, vocab);
}

}  // namespace

// What Measure gathers over all contexts.
class QualityBed::Sums {
 public:
  void AddBytes(size_t bytes, size_t values) {
    bytes_ += bytes;
    values_ += values;
  }
  // Compares the logits of all tokens of a continuation.
  void Compare(absl::Span<const int32_t> tokens,
               const std::vector<float>& exact,
               const std::vector<float>& logits) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto right = RowOf(exact, tokens.size(), i);
      const auto row = RowOf(logits, tokens.size(), i);
      divergences_.push_back(model::Divergence(right, row));
      context_sum_ += divergences_.back();
      ++context_count_;
      same_ += model::Argmax(right) == model::Argmax(row) ? 1 : 0;
      if (i + 1 == tokens.size()) continue;
      surprise_ -= model::LogProbability(row, tokens[i + 1]);
      ++followed_;
    }
  }
  void EndContext() {
    if (context_count_ > 0) means_.push_back(context_sum_ / context_count_);
    context_sum_ = 0;
    context_count_ = 0;
  }
  // Whether greedy decoding would give the answer at the question's end.
  void Ask(const Continuation& question, const std::vector<float>& logits) {
    const size_t count = question.tokens.size();
    bool right = true;
    for (size_t i = count - question.answer; i < count; ++i) {
      right &= model::Argmax(RowOf(logits, count, i - 1)) == question.tokens[i];
    }
    ++asked_;
    right_ += right ? 1 : 0;
  }

  absl::StatusOr<Quality> Finish() && {
    if (divergences_.empty()) return absl::InternalError("no long context");
    std::sort(divergences_.begin(), divergences_.end());
    const double count = static_cast<double>(divergences_.size());
    Quality quality;
    quality.bits_per_value = 8.0 * static_cast<double>(bytes_) / values_;
    quality.kl_mean =
        std::accumulate(divergences_.begin(), divergences_.end(), 0.0) / count;
    quality.kl_se = StandardError();
    quality.kl_p99 = divergences_[static_cast<size_t>(0.99 * (count - 1))];
    quality.top1 = static_cast<double>(same_) / count;
    if (followed_ > 0) quality.perplexity = std::exp(surprise_ / followed_);
    quality.accuracy =
        asked_ == 0 ? -1.0 : static_cast<double>(right_) / asked_;
    quality.positions = static_cast<int>(divergences_.size());
    quality.contexts = static_cast<int>(means_.size());
    return quality;
  }

 private:
  // Of the mean over contexts, whose positions depend on each other.
  double StandardError() const {
    const auto count = static_cast<double>(means_.size());
    if (means_.size() < 2) return 0;
    const double mean =
        std::accumulate(means_.begin(), means_.end(), 0.0) / count;
    double squares = 0;
    for (const double x : means_) squares += (x - mean) * (x - mean);
    return std::sqrt(squares / (count - 1) / count);
  }

  size_t bytes_ = 0;
  size_t values_ = 0;
  std::vector<double> divergences_;
  std::vector<double> means_;  // of each context that was compared
  double context_sum_ = 0;
  int context_count_ = 0;
  size_t same_ = 0;
  double surprise_ = 0;
  int followed_ = 0;
  int right_ = 0;
  int asked_ = 0;
};

absl::StatusOr<QualityBed> QualityBed::Create(
    const std::string& directory, absl::Span<const std::string> texts,
    const ContextLimits& limits) {
  auto llama = model::Llama::Load(directory, {});
  if (!llama.ok()) return llama.status();
  auto tokenizer = model::Tokenizer::Load(directory);
  if (!tokenizer.ok()) return tokenizer.status();
  QualityBed bed(*std::move(llama), *std::move(tokenizer));
  auto contexts =
      texts.empty()
          ? RecallContexts(bed.tokenizer_, directory + "/eval.jsonl", limits)
          : TextContexts(bed.tokenizer_, texts, limits);
  if (!contexts.ok()) return contexts.status();
  for (Context& context : *contexts) {
    if (absl::Status s = bed.Add(std::move(context)); !s.ok()) return s;
  }
  return bed;
}

absl::StatusOr<std::vector<float>> QualityBed::LogitsBehind(
    model::KvCache& cache, absl::Span<const int32_t> continuation) const {
  const int context = cache.size();
  auto logits = llama_->Prefill(cache, continuation,
                                Positions(context, continuation.size()),
                                model::LogitRows::kAll);
  cache.Truncate(context);
  return logits;
}

absl::Status QualityBed::Add(Context context) {
  const int tokens = static_cast<int>(context.tokens.size());
  model::KvCache cache(spec(), tokens + static_cast<int>(LongestOf(context)));
  if (const auto status =
          llama_->PrefillInChunks(cache, context.tokens, 0).status();
      !status.ok()) {
    return status;
  }
  Case one;
  one.kv = std::make_unique<KvTensor>(KvTensor::Of(cache.Tokens(0, tokens)));
  for (const Continuation& continuation : context.continuations) {
    one.logits.emplace_back();
    if (continuation.answer > 0) continue;
    auto logits = LogitsBehind(cache, continuation.tokens);
    if (!logits.ok()) return logits.status();
    one.logits.back() = *std::move(logits);
  }
  one.context = std::move(context);
  cases_.push_back(std::move(one));
  return absl::OkStatus();
}

absl::StatusOr<KvTensor> QualityBed::Code(const Case& one,
                                          const CodecUnderTest& codec,
                                          int chunk_tokens,
                                          size_t& bytes) const {
  const int tokens = static_cast<int>(one.context.tokens.size());
  KvTensor decoded(one.kv->shape());
  for (int begin = 0; begin < tokens; begin += chunk_tokens) {
    const int count = std::min(chunk_tokens, tokens - begin);
    absl::StatusOr<Coded> coded =
        codec.code(one.kv->Tokens(begin, count), Positions(begin, count));
    if (!coded.ok()) return coded.status();
    bytes += coded->bytes;
    decoded.Place(begin, coded->kv);
  }
  return decoded;
}

absl::Status QualityBed::MeasureCase(const Case& one,
                                     const CodecUnderTest& codec,
                                     int chunk_tokens, Sums& sums) const {
  size_t bytes = 0;
  const absl::StatusOr<KvTensor> decoded =
      Code(one, codec, chunk_tokens, bytes);
  if (!decoded.ok()) return decoded.status();
  if (one.context.compares()) sums.AddBytes(bytes, decoded->size());
  const int tokens = static_cast<int>(one.context.tokens.size());
  model::KvCache cache(spec(),
                       tokens + static_cast<int>(LongestOf(one.context)));
  decoded->Store(cache.Tokens(0, tokens));
  cache.Append(Positions(0, tokens));
  for (size_t i = 0; i < one.context.continuations.size(); ++i) {
    const Continuation& continuation = one.context.continuations[i];
    const auto logits = LogitsBehind(cache, continuation.tokens);
    if (!logits.ok()) return logits.status();
    if (continuation.answer > 0) {
      sums.Ask(continuation, *logits);
    } else {
      sums.Compare(continuation.tokens, one.logits[i], *logits);
    }
  }
  sums.EndContext();
  return absl::OkStatus();
}

absl::StatusOr<Quality> QualityBed::Measure(const CodecUnderTest& codec,
                                            int chunk_tokens) const {
  Sums sums;
  for (const Case& one : cases_) {
    if (absl::Status s = MeasureCase(one, codec, chunk_tokens, sums); !s.ok()) {
      return s;
    }
  }
  return std::move(sums).Finish();
}

}  // namespace kdn::bench
