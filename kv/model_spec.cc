#include "kv/model_spec.h"

#include "absl/strings/str_cat.h"

namespace kdn {
namespace {

absl::Status InRange(const char* field, int64_t value, int64_t max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("model.", field, " is ", value, ", expected 1 to ", max));
}

absl::Status ShortEnough(const char* field, const std::string& text) {
  if (text.size() <= kNameBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("model.", field, " has ", text.size(),
                   " bytes, expected at most ", kNameBytesMax));
}

}  // namespace

absl::Status Validate(const ModelSpec& spec) {
  for (const absl::Status& status :
       {InRange("num_layers", spec.num_layers, kLayersMax),
        InRange("num_kv_heads", spec.num_kv_heads, kKvHeadsMax),
        InRange("head_dim", spec.head_dim, kHeadDimMax),
        ShortEnough("name", spec.name),
        ShortEnough("weights_digest", spec.weights_digest),
        ShortEnough("tokenizer_digest", spec.tokenizer_digest)}) {
    if (!status.ok()) return status;
  }
  if (spec.dtype > Dtype::kFp32) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model.dtype is ", static_cast<int>(spec.dtype), ", expected 0 to 2"));
  }
  return Validate(spec.rope, spec.head_dim);
}

ModelFingerprint FingerprintOf(const ModelSpec& spec) {
  DigestBuilder builder("kdn-model-1");
  builder.Add(static_cast<uint64_t>(spec.num_layers))
      .Add(static_cast<uint64_t>(spec.num_kv_heads))
      .Add(static_cast<uint64_t>(spec.head_dim))
      .Add(static_cast<uint64_t>(spec.dtype))
      .Add(spec.rope.theta)
      .Add(static_cast<uint64_t>(spec.rope.rotary_dim))
      .Add(static_cast<uint64_t>(spec.rope.pairing))
      .Add(static_cast<uint64_t>(spec.rope.scaling))
      .Add(spec.rope.factor)
      .Add(spec.rope.low_freq_factor)
      .Add(spec.rope.high_freq_factor)
      .Add(static_cast<uint64_t>(spec.rope.original_max_position))
      .Add(spec.rope.beta_fast)
      .Add(spec.rope.beta_slow)
      .Add(spec.rope.attention_factor)
      .Add(std::string_view(spec.weights_digest))
      .Add(std::string_view(spec.tokenizer_digest));
  return ModelFingerprint(builder.Finish());
}

}  // namespace kdn
