#include "model/config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/config_digest.h"

namespace kdn::model {
namespace {

using Json = nlohmann::json;

// Reads typed fields of one JSON object and remembers the first mistake.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  bool Has(const char* name) const {
    return object_.contains(name) && !object_.at(name).is_null();
  }
  // An integer in [min, max]. The field must be there.
  int Int(const char* name, int64_t min, int64_t max) {
    if (!Has(name)) return Fail(name, "missing"), 0;
    return IntOr(name, 0, min, max);
  }
  int IntOr(const char* name, int64_t fallback, int64_t min, int64_t max) {
    if (!Has(name)) return static_cast<int>(fallback);
    const Json& value = object_.at(name);
    if (!value.is_number_integer() || value.get<int64_t>() < min ||
        value.get<int64_t>() > max) {
      Fail(name, absl::StrCat("expected an integer from ", min, " to ", max));
      return static_cast<int>(fallback);
    }
    return static_cast<int>(value.get<int64_t>());
  }
  double NumberOr(const char* name, double fallback) {
    if (!Has(name)) return fallback;
    const Json& value = object_.at(name);
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      Fail(name, "expected a number");
      return fallback;
    }
    return value.get<double>();
  }
  bool BoolOr(const char* name, bool fallback) {
    if (!Has(name)) return fallback;
    if (!object_.at(name).is_boolean()) {
      Fail(name, "expected true or false");
      return fallback;
    }
    return object_.at(name).get<bool>();
  }
  std::string TextOr(const char* name, const std::string& fallback) {
    if (!Has(name)) return fallback;
    if (!object_.at(name).is_string()) {
      Fail(name, "expected a string");
      return fallback;
    }
    return object_.at(name).get<std::string>();
  }
  void Fail(const char* name, const std::string& what) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("config.json: ", name, ": ", what));
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  const Json& object_;
  absl::Status status_;
};

absl::Status Unimplemented(const std::string& what) {
  return absl::UnimplementedError(absl::StrCat("config.json: ", what));
}

std::optional<RopeScaling> ScalingOf(const std::string& name) {
  if (name == "default" || name == "none") return RopeScaling::kNone;
  if (name == "linear") return RopeScaling::kLinear;
  if (name == "llama3") return RopeScaling::kLlama3;
  if (name == "yarn") return RopeScaling::kYarn;
  return std::nullopt;
}

absl::Status ParseScaling(const Json& json, int max_position, RopeSpec& rope) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        "config.json: rope_scaling or rope_parameters: expected an object"
        " or null");
  }
  Fields fields(json);
  const std::string type =
      fields.TextOr("rope_type", fields.TextOr("type", "default"));
  const std::optional<RopeScaling> scaling = ScalingOf(type);
  if (!scaling) return Unimplemented(absl::StrCat("rope scaling '", type, "'"));
  rope.scaling = *scaling;
  if (rope.scaling == RopeScaling::kNone) return fields.status();
  rope.factor = fields.NumberOr("factor", 0.0);
  const bool needs_original = rope.scaling != RopeScaling::kLinear;
  if (needs_original) {
    rope.original_max_position = fields.IntOr(
        "original_max_position_embeddings", max_position, 1, 1 << 30);
  }
  if (rope.scaling == RopeScaling::kLlama3) {
    rope.low_freq_factor = fields.NumberOr("low_freq_factor", 1.0);
    rope.high_freq_factor = fields.NumberOr("high_freq_factor", 4.0);
  }
  if (rope.scaling == RopeScaling::kYarn) {
    rope.beta_fast = fields.NumberOr("beta_fast", 32.0);
    rope.beta_slow = fields.NumberOr("beta_slow", 1.0);
    const double usual =
        rope.factor <= 1.0 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
    rope.attention_factor = fields.NumberOr("attention_factor", usual);
    if (fields.Has("mscale") || fields.Has("mscale_all_dim")) {
      return Unimplemented("yarn with mscale");
    }
    if (!fields.BoolOr("truncate", true)) {
      return Unimplemented("yarn without truncate");
    }
  }
  return fields.status();
}

// Transformers 5 puts rope_theta and the fields of rope_scaling into
// rope_parameters.
absl::Status ParseRope(const Json& json, ModelConfig& config) {
  Fields fields(json);
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    if (!fields.Has(name)) continue;
    if (absl::Status status = ParseScaling(
            json[name], config.max_position_embeddings, config.rope);
        !status.ok()) {
      return status;
    }
    break;
  }
  Fields where(fields.Has("rope_parameters") ? json["rope_parameters"] : json);
  config.rope.theta =
      where.NumberOr("rope_theta", fields.NumberOr("rope_theta", 10000.0));
  for (Fields* place : {&fields, &where}) {
    if (place->NumberOr("partial_rotary_factor", 1.0) != 1.0) {
      return Unimplemented("partial_rotary_factor other than 1");
    }
    if (!place->status().ok()) return place->status();
  }
  return absl::OkStatus();
}

// What Transformers assumes of a field that a config.json leaves out.
struct Family {
  const char* architecture;
  const char* model_type;
  int num_kv_heads;  // 0: one per head
  int max_position_embeddings;
  int sliding_window;  // 0: none
  bool use_sliding_window;
};
constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", "llama", 0, 2048, 0, true},
    {"MistralForCausalLM", "mistral", 8, 131072, 4096, true},
    {"Qwen2ForCausalLM", "qwen2", 32, 32768, 0, false}};

const Family* FamilyOf(const std::string& architecture) {
  for (const Family& family : kFamilies) {
    if (architecture == family.architecture) return &family;
  }
  return nullptr;
}

// Whether a layer may use a sliding window. Windows that are shorter than the
// longest text are not computed.
absl::StatusOr<bool> Slides(const Json& json, const Family& family,
                            int max_position, Fields& fields) {
  if (fields.Has("layer_types")) {
    for (const Json& type : json["layer_types"]) {
      if (type == "full_attention") continue;
      return Unimplemented(absl::StrCat(
          "layer_types: ", type.is_string() ? type.get<std::string>()
                                            : "an entry that is no text"));
    }
    if (!json["layer_types"].empty()) return false;
  }
  // A null says that there is no window, also where a missing field has one.
  const bool windowed = json.contains("sliding_window")
                            ? fields.Has("sliding_window")
                            : family.sliding_window > 0;
  if (!windowed ||
      !fields.BoolOr("use_sliding_window", family.use_sliding_window)) {
    return false;
  }
  if (fields.IntOr("sliding_window", family.sliding_window, 0, 1 << 30) <
      max_position) {
    return Unimplemented("sliding window attention");
  }
  return true;
}

absl::Status CheckArchitecture(const Family& family, Fields& fields) {
  const std::string type = fields.TextOr("model_type", family.model_type);
  if (type != family.model_type) {
    return Unimplemented(absl::StrCat("architecture '", family.architecture,
                                      "' with model_type '", type, "'"));
  }
  const std::string activation = fields.TextOr("hidden_act", "silu");
  if (activation != "silu") {
    return Unimplemented(absl::StrCat("hidden_act '", activation, "'"));
  }
  if (fields.BoolOr("mlp_bias", false)) return Unimplemented("mlp_bias");
  return absl::OkStatus();
}

absl::Status ParseEos(const Json& json, ModelConfig& config) {
  if (!json.contains("eos_token_id") || json["eos_token_id"].is_null()) {
    return absl::OkStatus();
  }
  const Json& eos = json["eos_token_id"];
  for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
    if (!id.is_number_integer()) {
      return absl::InvalidArgumentError(
          "config.json: eos_token_id: expected an integer or a list of them");
    }
    config.eos_token_ids.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::Status CheckGeometry(const ModelConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "config.json: num_attention_heads ", config.num_heads,
        " is not a multiple of num_key_value_heads ", config.num_kv_heads));
  }
  // A head_dim that is not in the file is a quotient of other fields, so it may
  // have any value.
  if (config.head_dim < 2 || config.head_dim > kHeadDimMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: hidden_size ", config.hidden_size, " over ",
                     config.num_heads, " heads gives a head_dim of ",
                     config.head_dim, ", expected 2 to ", kHeadDimMax));
  }
  return Validate(config.rope, config.head_dim);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseConfig(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("config.json is not a JSON object");
  }
  Fields fields(json);
  ModelConfig config;
  if (!json.contains("architectures") || !json["architectures"].is_array() ||
      json["architectures"].empty() || !json["architectures"][0].is_string()) {
    return absl::InvalidArgumentError(
        "config.json: architectures: expected a list with one name");
  }
  config.architecture = json["architectures"][0].get<std::string>();
  const Family* const family = FamilyOf(config.architecture);
  if (family == nullptr) {
    return Unimplemented(
        absl::StrCat("architecture '", config.architecture,
                     "'; Llama, Mistral and Qwen2 are supported"));
  }
  config.vocab_size = fields.Int("vocab_size", 1, 1 << 24);
  config.hidden_size = fields.Int("hidden_size", 1, 1 << 20);
  config.intermediate_size = fields.Int("intermediate_size", 1, 1 << 22);
  config.num_layers = fields.Int("num_hidden_layers", 1, kLayersMax);
  config.num_heads = fields.Int("num_attention_heads", 1, 4 * kKvHeadsMax);
  const bool has_kv_heads =
      json.contains("num_key_value_heads") || family->num_kv_heads == 0;
  config.num_kv_heads = fields.IntOr(
      "num_key_value_heads",
      has_kv_heads ? config.num_heads : family->num_kv_heads, 1, kKvHeadsMax);
  config.max_position_embeddings = fields.IntOr(
      "max_position_embeddings", family->max_position_embeddings, 1, 1 << 30);
  config.rms_norm_eps = fields.NumberOr("rms_norm_eps", 1e-6);
  const bool is_qwen = config.architecture == "Qwen2ForCausalLM";
  config.tie_word_embeddings = fields.BoolOr("tie_word_embeddings", false);
  config.attention_bias = is_qwen || fields.BoolOr("attention_bias", false);
  config.output_bias = !is_qwen && config.attention_bias;
  if (!fields.status().ok()) return fields.status();
  config.head_dim = fields.IntOr(
      "head_dim", config.hidden_size / config.num_heads, 2, kHeadDimMax);
  config.rope.rotary_dim = config.head_dim;
  if (absl::Status status = ParseRope(json, config); !status.ok()) {
    return status;
  }
  for (const absl::Status& status :
       {fields.status(), CheckArchitecture(*family, fields), fields.status(),
        ParseEos(json, config), CheckGeometry(config)}) {
    if (!status.ok()) return status;
  }
  const absl::StatusOr<bool> slides =
      Slides(json, *family, config.max_position_embeddings, fields);
  if (!slides.ok()) return slides.status();
  if (!fields.status().ok()) return fields.status();
  Json complete = json;
  if (*slides && !json.contains("sliding_window")) {
    complete["sliding_window"] = family->sliding_window;
  }
  absl::StatusOr<std::string> digest =
      ConfigDigest(complete, family->model_type, *slides);
  if (!digest.ok()) return digest.status();
  config.digest = *std::move(digest);
  return config;
}

ModelSpec ToModelSpec(const ModelConfig& config, std::string name,
                      Dtype kv_dtype, const std::string& weights_digest,
                      std::string tokenizer_digest) {
  ModelSpec spec;
  spec.name = std::move(name);
  spec.num_layers = config.num_layers;
  spec.num_kv_heads = config.num_kv_heads;
  spec.head_dim = config.head_dim;
  spec.dtype = kv_dtype;
  spec.rope = config.rope;
  spec.weights_digest = ModelDigest(weights_digest, config.digest);
  spec.tokenizer_digest = std::move(tokenizer_digest);
  return spec;
}

}  // namespace kdn::model
