#include "model/weights.h"

#include <functional>
#include <numeric>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kdn::model {
namespace {

// Reads tensors and keeps the first error.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, Compute compute, HugeMemory& memory)
      : checkpoint_(checkpoint), compute_(compute), memory_(memory) {}

  const absl::Status& status() const { return status_; }
  // Zeros after an error.
  std::vector<float> Floats(const std::string& name,
                            const std::vector<int64_t>& shape) {
    absl::StatusOr<std::vector<float>> values =
        checkpoint_.GetFloats(name, shape);
    status_.Update(values.status());
    if (values.ok()) return *std::move(values);
    return std::vector<float>(std::accumulate(shape.begin(), shape.end(),
                                              size_t{1}, std::multiplies<>()));
  }
  // The layers `names` with `outputs` each, below one another.
  Linear Stack(const std::vector<std::string>& names,
               const std::vector<int>& outputs, int inputs, bool biased) {
    std::vector<float> weights;
    std::vector<float> bias;
    for (size_t i = 0; i < names.size(); ++i) {
      Append(Floats(names[i] + ".weight", {outputs[i], inputs}), weights);
      if (biased) Append(Floats(names[i] + ".bias", {outputs[i]}), bias);
    }
    const int all = std::accumulate(outputs.begin(), outputs.end(), 0);
    return Linear(weights, std::move(bias), all, inputs, compute_, memory_);
  }

 private:
  static void Append(const std::vector<float>& values, std::vector<float>& to) {
    to.insert(to.end(), values.begin(), values.end());
  }

  const Checkpoint& checkpoint_;
  const Compute compute_;
  HugeMemory& memory_;
  absl::Status status_;
};

LayerWeights ReadLayer(Reader& reader, const ModelConfig& c, int number) {
  const std::string prefix = absl::StrCat("model.layers.", number, ".");
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  const int q = c.num_heads * c.head_dim;
  const int kv = c.num_kv_heads * c.head_dim;
  return LayerWeights{
      reader.Floats(prefix + "input_layernorm.weight", {c.hidden_size}),
      reader.Floats(prefix + "post_attention_layernorm.weight",
                    {c.hidden_size}),
      reader.Stack(
          {attention + "q_proj", attention + "k_proj", attention + "v_proj"},
          {q, kv, kv}, c.hidden_size, c.attention_bias),
      reader.Stack({attention + "o_proj"}, {c.hidden_size}, q, c.output_bias),
      reader.Stack({mlp + "gate_proj"}, {c.intermediate_size}, c.hidden_size,
                   false),
      reader.Stack({mlp + "up_proj"}, {c.intermediate_size}, c.hidden_size,
                   false),
      reader.Stack({mlp + "down_proj"}, {c.hidden_size}, c.intermediate_size,
                   false)};
}

}  // namespace

size_t Weights::matrix_bytes() const {
  size_t bytes = output->memory().size();
  for (const LayerWeights& layer : layers) {
    for (const Linear* each :
         {&layer.qkv, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      bytes += each->memory().size();
    }
  }
  return bytes;
}

size_t Weights::layer_flops() const {
  size_t flops = 0;
  for (const LayerWeights& layer : layers) {
    for (const Linear* each :
         {&layer.qkv, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      flops += size_t{2} * each->inputs() * each->outputs();
    }
  }
  return flops;
}

absl::StatusOr<Weights> LoadWeights(const Checkpoint& checkpoint,
                                    const ModelConfig& config,
                                    Compute compute) {
  Weights weights;
  Reader reader(checkpoint, compute, weights.memory);
  const int vocab = config.vocab_size;
  const int hidden = config.hidden_size;
  weights.embedding =
      reader.Floats("model.embed_tokens.weight", {vocab, hidden});
  weights.final_norm = reader.Floats("model.norm.weight", {hidden});
  if (config.tie_word_embeddings) {
    weights.output.emplace(weights.embedding, std::vector<float>(), vocab,
                           hidden, compute, weights.memory);
  } else {
    weights.output = reader.Stack({"lm_head"}, {vocab}, hidden, false);
  }
  for (int i = 0; i < config.num_layers && reader.status().ok(); ++i) {
    weights.layers.push_back(ReadLayer(reader, config, i));
  }
  if (!reader.status().ok()) return reader.status();
  return weights;
}

}  // namespace kdn::model
