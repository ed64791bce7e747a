#ifndef KDN_MODEL_LLAMA_H_
#define KDN_MODEL_LLAMA_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/model_spec.h"
#include "kv/rope_spec.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/linear.h"
#include "model/safetensors.h"

namespace kdn::model {

// Says whether the query at position `query` may attend to the token at
// position `key`. `slot` is that token's index in the cache. Called by several
// threads at once.
using Mask = std::function<bool(int32_t query, int32_t key, int slot)>;
// The causal rule. It goes by positions, so the order in the cache is free.
inline bool Causal(int32_t query, int32_t key, int) { return key <= query; }

// A Llama-family decoder on the CPU: RMSNorm, RoPE, grouped-query attention,
// SwiGLU, optional attention bias, tied or own output embeddings.
//
// Attention reads all K and V from the cache, in the cache's dtype, also those
// of the call's own tokens. So KV that went through the KDN bit for bit gives
// the same logits as the KV that was computed, if the calls end at the same
// tokens (see PrefillInChunks). Immutable; thread-safe: a KvCache belongs to
// one call at a time.
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

  // Runs `tokens` at absolute `positions` behind the tokens in `cache`, and
  // adds their KV to the cache. Returns the logits of the last token, or with
  // `all` those of every token, [tokens][vocab_size]. INVALID_ARGUMENT for
  // unequal lengths, no tokens, a token outside the vocabulary or a cache of
  // another model; OUT_OF_RANGE for a negative position; RESOURCE_EXHAUSTED
  // when the cache is too small. An error leaves the cache unchanged.
  absl::StatusOr<std::vector<float>> Prefill(
      KvCache& cache, absl::Span<const int32_t> tokens,
      absl::Span<const int32_t> positions, const Mask& mask = Causal,
      bool all = false) const;
  // Prefills `tokens` at positions first_position, +1, ... in calls that end
  // where the KDN's chunks end: where the cache holds a multiple of
  // kChunkTokens tokens. So the calls, and the bits of their KV, are the same
  // however many chunks of a text the cache holds already.
  absl::StatusOr<std::vector<float>> PrefillInChunks(
      KvCache& cache, absl::Span<const int32_t> tokens,
      int32_t first_position) const;

  // Greedy decoding: returns at most `count` tokens, the first one by `logits`.
  // Stops before an end-of-sequence token.
  absl::StatusOr<std::vector<int32_t>> Decode(KvCache& cache,
                                              std::vector<float> logits,
                                              int count) const;

 private:
  struct Layer {
    std::vector<float> attention_norm;
    std::vector<float> mlp_norm;
    Linear q, k, v, o, gate, up, down;
  };
  struct Rows;  // positions and rotations of one call

  Llama(ModelConfig config, ModelSpec spec);
  absl::Status LoadWeights(const Checkpoint& checkpoint, Compute compute);
  absl::StatusOr<Layer> LoadLayer(const Checkpoint& checkpoint, int layer,
                                  Compute compute) const;
  absl::Status CheckCall(const KvCache& cache, absl::Span<const int32_t> tokens,
                         absl::Span<const int32_t> positions) const;
  void WriteKv(const Rows& rows, int layer, absl::Span<const float> k,
               absl::Span<const float> v, KvCache& cache, int begin) const;
  std::vector<float> Attend(const Rows& rows, int layer, std::vector<float> q,
                            const KvCache& cache, const Mask& mask) const;
  // The query heads of one KV head. Rotates them in `q` and writes their rows
  // of `out`; both are [rows][num_heads][head_dim].
  void AttendHead(const Rows& rows, int layer, int kv_head, absl::Span<float> q,
                  const KvCache& cache, const Mask& mask,
                  absl::Span<float> out) const;

  ModelConfig config_;
  ModelSpec spec_;
  RopeTable rope_;
  std::vector<float> embedding_;  // [vocab][hidden]
  std::vector<Layer> layers_;
  std::vector<float> final_norm_;
  std::unique_ptr<Linear> output_;
};

// The index of the largest logit; of equal logits, the first.
int32_t Argmax(absl::Span<const float> logits);

}  // namespace kdn::model

#endif  // KDN_MODEL_LLAMA_H_
