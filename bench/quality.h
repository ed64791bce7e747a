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

// What coding the KV of a context did to what the model says behind it.
struct Quality {
  double bits_per_value = 0;  // all side information counted
  double kl_mean = 0;         // nats, of the logits against those of exact KV
  double kl_p99 = 0;
  double top1 = 0;      // share of positions whose likeliest token is the same
  double accuracy = 0;  // of answers to recall questions; negative: none asked
};

// A model, contexts whose KV it computed, and what it says behind them.
class QualityBed {
 public:
  // How much of eval.jsonl is asked.
  struct Limits {
    int instances = 1 << 30;
    int questions = 1 << 30;  // of each
  };
  // Of a checkpoint directory. The recall model is asked what is in its
  // eval.jsonl; any other goes on with the text of `text_file`.
  static absl::StatusOr<QualityBed> Create(const std::string& directory,
                                           const std::string& text_file,
                                           const Limits& limits);

  // Codes every context in chunks of `chunk_tokens` and compares. INTERNAL when
  // there is no long context to measure a rate on.
  absl::StatusOr<Quality> Measure(const CodecUnderTest& codec,
                                  int chunk_tokens) const;

  const ModelSpec& spec() const { return llama_->spec(); }
  const model::Llama& llama() const { return *llama_; }
  const model::Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  // A context, and what comes behind it. Long ones tell rate and divergence;
  // short ones, which the recall model answers, accuracy.
  struct Case {
    std::vector<int32_t> tokens;
    std::unique_ptr<KvTensor> kv;
    std::vector<std::vector<int32_t>> continuations;
    // One a continuation of a short context; empty for a long one.
    std::vector<std::string> answers;
    // Of every token of a continuation, with exact KV.
    std::vector<std::vector<float>> logits;
  };

  QualityBed(std::unique_ptr<model::Llama> llama, model::Tokenizer tokenizer)
      : llama_(std::move(llama)), tokenizer_(std::move(tokenizer)) {}
  absl::Status AddRecallCases(const std::string& file, const Limits& limits);
  // Moves what fills a long context out of `tokens` and `questions`.
  absl::Status AddLongCase(std::vector<int32_t>& tokens,
                           std::vector<std::vector<int32_t>>& questions);
  absl::Status AddTextCases(const std::string& file);
  // Computes KV and logits of a case.
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
