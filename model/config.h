#ifndef KDN_MODEL_CONFIG_H_
#define KDN_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kv/model_spec.h"

namespace kdn::model {

// The config.json of a Hugging Face checkpoint of the Llama family.
struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", "Qwen2ForCausalLM", ...
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // whether q, k and v have biases
  bool output_bias = false;     // whether o has a bias
  RopeSpec rope;
  std::vector<int32_t> eos_token_ids;
  // Of everything that decides how KV is computed: see ConfigDigest.
  std::string digest;
};

// Parses the text of a config.json. INVALID_ARGUMENT names the field that is
// missing or out of bounds. UNIMPLEMENTED for an architecture, an activation or
// a RoPE scaling that this code does not compute.
absl::StatusOr<ModelConfig> ParseConfig(const std::string& json);

// Makes the KDN's description of the model. The digests distinguish models of
// equal geometry. The spec's weights_digest is a digest of `weights_digest` and
// of the config, because equal weights may be computed in different ways.
ModelSpec ToModelSpec(const ModelConfig& config, std::string name,
                      Dtype kv_dtype, const std::string& weights_digest,
                      std::string tokenizer_digest);

}  // namespace kdn::model

#endif  // KDN_MODEL_CONFIG_H_
