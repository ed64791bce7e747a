#ifndef KDN_BENCH_QUALITY_H_
#define KDN_BENCH_QUALITY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/kv_tensor.h"
#include "model/llama.h"
#include "model/tokenizer.h"

namespace kdn::bench {

// How coding the KV of contexts changes what the model says behind them.
struct Quality {
  double bits_per_value = 0;  // with all side information
  double kl_mean = 0;   // divergence of the logits from those of exact KV, nats
  double kl_p99 = 0;    // nats
  double top1 = 0;      // share of positions with the same likeliest token
  double accuracy = 0;  // share of right answers; negative: no questions
};

// A model, contexts, and the exact KV and logits of these contexts.
class QualityBed {
 public:
  // How much of eval.jsonl to use at most.
  struct Limits {
    int instances = 1 << 30;
    int questions = 1 << 30;  // per instance
  };
  // Loads a checkpoint directory. With an empty `text_file`, contexts and
  // questions come from the directory's eval.jsonl. Otherwise the contexts and
  // their continuations are cut from that text.
  static absl::StatusOr<QualityBed> Create(const std::string& directory,
                                           const std::string& text_file,
                                           const Limits& limits);

  // Codes every context in chunks of `chunk_tokens` and compares the model's
  // logits with those of exact KV. INTERNAL when there is no long context.
  absl::StatusOr<Quality> Measure(const CodecUnderTest& codec,
                                  int chunk_tokens) const;

  const ModelSpec& spec() const { return llama_->spec(); }
  const model::Llama& llama() const { return *llama_; }
  const model::Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  // A context and continuations behind it. Long contexts measure bits and
  // divergence. Short contexts have questions and measure accuracy.
  struct Case {
    std::vector<int32_t> tokens;
    std::unique_ptr<KvTensor> kv;
    std::vector<std::vector<int32_t>> continuations;
    // One answer per continuation of a short context; empty for a long context.
    std::vector<std::string> answers;
    // Per continuation: the logits of all its tokens, with exact KV.
    std::vector<std::vector<float>> logits;
  };

  QualityBed(std::unique_ptr<model::Llama> llama, model::Tokenizer tokenizer)
      : llama_(std::move(llama)), tokenizer_(std::move(tokenizer)) {}
  absl::Status AddRecallCases(const std::string& file, const Limits& limits);
  // Makes a long context of the first tokens and all questions. Clears both.
  absl::Status AddLongCase(std::vector<int32_t>& tokens,
                           std::vector<std::vector<int32_t>>& questions);
  absl::Status AddTextCases(const std::string& file);
  // Computes the KV and logits of a case and keeps the case.
  absl::Status Add(Case one);
  absl::StatusOr<KvTensor> Code(const Case& one, const CodecUnderTest& codec,
                                int chunk_tokens, size_t& bytes) const;
  absl::StatusOr<std::vector<float>> LogitsBehind(
      model::KvCache& cache, const std::vector<int32_t>& continuation) const;

  std::unique_ptr<model::Llama> llama_;
  model::Tokenizer tokenizer_;
  std::vector<Case> cases_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_QUALITY_H_
