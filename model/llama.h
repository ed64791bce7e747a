#ifndef KDN_MODEL_LLAMA_H_
#define KDN_MODEL_LLAMA_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/model_spec.h"
#include "kv/rope_spec.h"
#include "model/config.h"
#include "model/forward_pass.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace kdn::model {

// The rows whose logits a call returns. The output layer of a small model takes
// a third of its weights, so a caller asks for what it needs.
enum class LogitRows { kNone, kLast, kAll };

// A Llama-family decoder on the CPU: RMSNorm, RoPE, grouped-query attention,
// SwiGLU, optional attention bias, tied or own output embeddings.
//
// Attention reads all K and V from the cache, in the cache's dtype, also those
// of the call's own tokens. A token's row has the same bits however the tokens
// are cut into calls (see ForwardPass). So KV that went through the KDN bit for
// bit gives the same logits as the KV that was computed. Immutable;
// thread-safe: a KvCache belongs to one call at a time.
class Llama {
 public:
  struct Options {
    Compute compute = Compute::kBf16;
    Dtype kv_dtype = Dtype::kBf16;
  };
  // Loads config.json, the weights and the digest of tokenizer.json from a
  // Hugging Face checkpoint directory. Errors name the file and the field.
  static absl::StatusOr<std::unique_ptr<Llama>> Load(
      const std::string& directory, const Options& options);

  const ModelConfig& config() const { return config_; }
  const ModelSpec& spec() const { return spec_; }
  const RopeTable& rope() const { return rope_; }
  const Weights& weights() const { return weights_; }
  // What the layers multiply, and what attention multiplies: bf16 only if the
  // cache holds bf16.
  Operand operand() const { return operand_; }
  Operand attention_operand() const { return attention_operand_; }

  // Runs `tokens` at absolute `positions` behind the tokens in `cache`, and
  // adds their KV to the cache. Each token attends to the tokens up to its
  // position. Returns the logits of `logits`, [rows][vocab_size]. Errors are
  // those of ForwardPass::Begin, and leave the cache unchanged.
  absl::StatusOr<std::vector<float>> Prefill(
      KvCache& cache, absl::Span<const int32_t> tokens,
      absl::Span<const int32_t> positions,
      LogitRows logits = LogitRows::kLast) const;
  // The same for several sequences in one pass; the logits of each sequence
  // follow those of the one before. Uses the workspace of the first cache.
  absl::StatusOr<std::vector<float>> PrefillBatch(
      absl::Span<const Sequence> sequences, LogitRows logits = LogitRows::kLast,
      PassObserver* observer = nullptr) const;
  // Prefills `tokens` at positions first_position, +1, ... in calls that end
  // where chunks of the KDN end. Calls of a bounded size bound the memory of
  // the workspace.
  absl::StatusOr<std::vector<float>> PrefillInChunks(
      KvCache& cache, absl::Span<const int32_t> tokens, int32_t first_position,
      PassObserver* observer = nullptr) const;

  // Greedy decoding: returns at most `count` tokens, the first one by `logits`.
  // Stops before an end-of-sequence token.
  absl::StatusOr<std::vector<int32_t>> Decode(KvCache& cache,
                                              std::vector<float> logits,
                                              int count) const;

 private:
  Llama(ModelConfig config, ModelSpec spec, Weights weights,
        const Options& options);

  ModelConfig config_;
  ModelSpec spec_;
  RopeTable rope_;
  Weights weights_;
  Operand operand_;
  Operand attention_operand_;
};

// The index of the largest logit; of equal logits, the first.
int32_t Argmax(absl::Span<const float> logits);

}  // namespace kdn::model

#endif  // KDN_MODEL_LLAMA_H_
