#include "model/config_digest.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "kv/digest.h"

namespace kdn::model {
namespace {

using Json = nlohmann::json;
using Names = std::set<std::string, std::less<>>;

constexpr int kDepthMax = 32;

// The fields that do not count, beside those whose name begins with "_", which
// are private to Transformers.
const Names& Ignored() {
  static const auto* const names = new Names{
      // Fields that are in the ModelSpec itself. model_type counts under its
      // own name. Only full attention is accepted, so layer_types says nothing
      // more.
      "model_type", "torch_dtype", "dtype", "num_hidden_layers",
      "num_key_value_heads", "head_dim", "rope_theta", "rope_scaling",
      "rope_parameters", "partial_rotary_factor", "max_position_embeddings",
      "layer_types",
      // Names and origins. model_type names the computation, and architectures
      // the class of the whole model with its output head.
      "architectures", "transformers_version", "name_or_path",
      "finetuning_task", "task_specific_params", "problem_type", "id2label",
      "label2id", "num_labels", "tokenizer_class", "prefix",
      // Ids of special tokens. KV is computed of the token ids that a prompt
      // really has.
      "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id",
      "unk_token_id", "decoder_start_token_id", "forced_bos_token_id",
      "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
      // What a call returns, and the output head behind the last layer.
      "use_cache", "return_dict", "return_dict_in_generate",
      "output_attentions", "output_hidden_states", "output_scores",
      "torchscript", "tf_legacy_loss", "use_bfloat16", "tie_word_embeddings",
      // How tokens are chosen from the logits.
      "max_length", "min_length", "do_sample", "early_stopping", "num_beams",
      "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p",
      "typical_p", "repetition_penalty", "length_penalty",
      "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
      "num_return_sequences", "remove_invalid_values",
      "exponential_decay_length_penalty",
      // Training.
      "initializer_range", "attention_dropout", "gradient_checkpointing",
      // The order of sums: the results differ by rounding, as between engines.
      "attn_implementation", "pretraining_tp", "chunk_size_feed_forward"};
  return *names;
}

// Fields that count only where a layer may use a sliding window.
const Names& Sliding() {
  static const auto* const names =
      new Names{"sliding_window", "use_sliding_window", "max_window_layers"};
  return *names;
}

// The fields of rope_scaling that RopeSpec has, or of which only one value is
// accepted.
const Names& KnownOfRope() {
  static const auto* const names =
      new Names{"rope_type",        "type",
                "factor",           "low_freq_factor",
                "high_freq_factor", "original_max_position_embeddings",
                "beta_fast",        "beta_slow",
                "attention_factor", "mscale",
                "mscale_all_dim",   "truncate",
                "rope_theta",       "partial_rotary_factor"};
  return *names;
}

// The values of fields that a config leaves out, in all supported
// architectures.
const Json& Defaults() {
  static const auto* const defaults =
      new Json{{"hidden_act", "silu"},          {"rms_norm_eps", 1e-6},
               {"attention_bias", false},       {"mlp_bias", false},
               {"is_decoder", false},           {"is_encoder_decoder", false},
               {"add_cross_attention", false},  {"tie_encoder_decoder", false},
               {"pruned_heads", Json::object()}};
  return *defaults;
}

bool Counts(const std::string& name, const Json& value, bool slides) {
  if (value.is_null() || name.starts_with('_') || Ignored().contains(name)) {
    return false;
  }
  if (!slides && Sliding().contains(name)) return false;
  return !Defaults().contains(name) || Defaults()[name] != value;
}

// Adds a value with the name of its kind before it. Returns false when the
// value is nested more than `depth` levels deep.
bool AddValue(const Json& value, int depth, DigestBuilder& digest) {
  if (depth == 0) return false;
  const auto begin = [&](std::string_view kind) { digest.Add(kind); };
  if (value.is_null()) {
    begin("null");
  } else if (value.is_boolean()) {
    begin("bool");
    digest.Add(uint64_t{value.get<bool>()});
  } else if (value.is_number()) {
    begin("number");
    digest.Add(value.get<double>());
  } else if (value.is_string()) {
    begin("text");
    digest.Add(std::string_view(value.get_ref<const std::string&>()));
  } else if (value.is_array()) {
    begin("list");
    digest.Add(uint64_t{value.size()});
    for (const Json& each : value) {
      if (!AddValue(each, depth - 1, digest)) return false;
    }
  } else {
    begin("object");
    digest.Add(uint64_t{value.size()});
    for (const auto& [name, each] : value.items()) {  // sorted by name
      digest.Add(std::string_view(name));
      if (!AddValue(each, depth - 1, digest)) return false;
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::string> ConfigDigest(const Json& config,
                                         const std::string& kind, bool slides) {
  Json fields = Json::object();
  for (const auto& [name, value] : config.items()) {
    if (Counts(name, value, slides)) fields[name] = value;
  }
  for (const char* place : {"rope_scaling", "rope_parameters"}) {
    if (!config.contains(place) || !config[place].is_object()) continue;
    for (const auto& [name, value] : config[place].items()) {
      if (!value.is_null() && !KnownOfRope().contains(name)) {
        fields[absl::StrCat("rope.", name)] = value;
      }
    }
  }
  DigestBuilder digest("kdn-config-1");
  digest.Add(std::string_view(kind));
  if (!AddValue(fields, kDepthMax, digest)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "config.json is nested more than ", kDepthMax, " levels deep"));
  }
  return HexOf(digest.Finish());
}

std::string ModelDigest(const std::string& weights_digest,
                        const std::string& config_digest) {
  return HexOf(DigestBuilder("kdn-checkpoint-1")
                   .Add(std::string_view(weights_digest))
                   .Add(std::string_view(config_digest))
                   .Finish());
}

}  // namespace kdn::model
