#ifndef KDN_BENCH_QUALITY_H_
#define KDN_BENCH_QUALITY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/contexts.h"
#include "bench/kv_tensor.h"
#include "model/llama.h"
#include "model/tokenizer.h"

namespace kdn::bench {

// How coding the KV of contexts changes what the model says behind them.
struct Quality {
  double bits_per_value = 0;  // with all side information
  // The divergence of the logits from those of exact KV, in nats: the mean over
  // all positions, its standard error over the contexts, and the 99th
  // percentile.
  double kl_mean = 0;
  double kl_se = 0;
  double kl_p99 = 0;
  double top1 = 0;  // share of positions with the same likeliest token
  // Of the tokens that really follow.
  double perplexity = 0;
  double accuracy = 0;  // share of right answers; negative: no questions
  int positions = 0;    // whose logits were compared
  int contexts = 0;     // behind which they were compared
};

// A model, contexts, and the exact KV and logits of these contexts.
class QualityBed {
 public:
  // Loads a checkpoint directory. Without texts, contexts and questions come
  // from the directory's eval.jsonl.
  static absl::StatusOr<QualityBed> Create(const std::string& directory,
                                           absl::Span<const std::string> texts,
                                           const ContextLimits& limits);

  // Codes every context in chunks of `chunk_tokens` and compares the model's
  // logits with those of exact KV. INTERNAL when no context is compared.
  absl::StatusOr<Quality> Measure(const CodecUnderTest& codec,
                                  int chunk_tokens) const;

  const ModelSpec& spec() const { return llama_->spec(); }
  const model::Llama& llama() const { return *llama_; }
  const model::Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  struct Case {
    Context context;
    std::unique_ptr<KvTensor> kv;
    // Of each continuation that is compared: the logits of all its tokens with
    // exact KV. Empty for a question.
    std::vector<std::vector<float>> logits;
  };
  class Sums;

  QualityBed(std::unique_ptr<model::Llama> llama, model::Tokenizer tokenizer)
      : llama_(std::move(llama)), tokenizer_(std::move(tokenizer)) {}
  // Computes the KV and logits of a context and keeps them.
  absl::Status Add(Context context);
  absl::StatusOr<KvTensor> Code(const Case& one, const CodecUnderTest& codec,
                                int chunk_tokens, size_t& bytes) const;
  absl::Status MeasureCase(const Case& one, const CodecUnderTest& codec,
                           int chunk_tokens, Sums& sums) const;
  absl::StatusOr<std::vector<float>> LogitsBehind(
      model::KvCache& cache, absl::Span<const int32_t> continuation) const;

  std::unique_ptr<model::Llama> llama_;
  model::Tokenizer tokenizer_;
  std::vector<Case> cases_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_QUALITY_H_
