#include "model/llama.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/chunk_key.h"
#include "kv/digest.h"
#include "model/attention.h"

namespace kdn::model {
namespace {

// A call with fewer pairs of a query and a token attends on one thread.
constexpr size_t kPairsPerThread = 1 << 16;

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("cannot read ", path.string(),
                     ": is it a Hugging Face checkpoint directory?"));
  }
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

// For each row, in fp32: x / rms(x) * weight.
std::vector<float> RmsNorm(absl::Span<const float> x,
                           absl::Span<const float> weight, double epsilon) {
  const size_t width = weight.size();
  std::vector<float> y(x.size());
  for (size_t row = 0; row < x.size(); row += width) {
    float sum = 0.0f;
    for (size_t i = 0; i < width; ++i) sum += x[row + i] * x[row + i];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) +
                                         static_cast<float>(epsilon));
    for (size_t i = 0; i < width; ++i) {
      y[row + i] = x[row + i] * scale * weight[i];
    }
  }
  return y;
}

void AddInto(std::vector<float>& sum, const std::vector<float>& term) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += term[i];
}

}  // namespace

struct Llama::Rows {
  absl::Span<const int32_t> positions;
  std::vector<float> cos;  // [row][pair]
  std::vector<float> sin;
};

Llama::Llama(ModelConfig config, ModelSpec spec)
    : config_(std::move(config)), spec_(std::move(spec)), rope_(spec_.rope) {}

absl::StatusOr<std::unique_ptr<Llama>> Llama::Load(const std::string& directory,
                                                   const Options& options) {
  const std::filesystem::path root(directory);
  absl::StatusOr<std::string> text = ReadFile(root / "config.json");
  if (!text.ok()) return text.status();
  absl::StatusOr<ModelConfig> config = ParseConfig(*text);
  if (!config.ok()) return config.status();
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  DigestBuilder tokenizer("kdn-tokenizer-1");
  if (absl::StatusOr<std::string> json = ReadFile(root / "tokenizer.json");
      json.ok()) {
    tokenizer.Add(std::string_view(*json));
  }
  ModelSpec spec =
      ToModelSpec(*config, root.filename().string(), options.kv_dtype,
                  checkpoint->digest(), HexOf(tokenizer.Finish()));
  if (absl::Status status = Validate(spec); !status.ok()) return status;
  std::unique_ptr<Llama> llama(new Llama(*std::move(config), std::move(spec)));
  if (absl::Status status = llama->LoadWeights(*checkpoint, options.compute);
      !status.ok()) {
    return status;
  }
  return llama;
}

absl::Status Llama::LoadWeights(const Checkpoint& checkpoint, Compute compute) {
  const int64_t vocab = config_.vocab_size;
  const int64_t hidden = config_.hidden_size;
  absl::StatusOr<std::vector<float>> embedding =
      checkpoint.GetFloats("model.embed_tokens.weight", {vocab, hidden});
  if (!embedding.ok()) return embedding.status();
  embedding_ = *std::move(embedding);
  absl::StatusOr<std::vector<float>> norm =
      checkpoint.GetFloats("model.norm.weight", {hidden});
  if (!norm.ok()) return norm.status();
  final_norm_ = *std::move(norm);
  std::vector<float> output = embedding_;
  if (!config_.tie_word_embeddings) {
    absl::StatusOr<std::vector<float>> own =
        checkpoint.GetFloats("lm_head.weight", {vocab, hidden});
    if (!own.ok()) return own.status();
    output = *std::move(own);
  }
  output_ = std::make_unique<Linear>(std::move(output), std::vector<float>(),
                                     config_.vocab_size, config_.hidden_size,
                                     compute);
  for (int i = 0; i < config_.num_layers; ++i) {
    absl::StatusOr<Layer> layer = LoadLayer(checkpoint, i, compute);
    if (!layer.ok()) return layer.status();
    layers_.push_back(*std::move(layer));
  }
  return absl::OkStatus();
}

absl::StatusOr<Llama::Layer> Llama::LoadLayer(const Checkpoint& checkpoint,
                                              int number,
                                              Compute compute) const {
  const std::string prefix = absl::StrCat("model.layers.", number, ".");
  absl::Status error;
  const auto floats = [&](const std::string& name, std::vector<int64_t> shape) {
    absl::StatusOr<std::vector<float>> values =
        checkpoint.GetFloats(prefix + name, shape);
    error.Update(values.status());
    return values.ok() ? *std::move(values)
                       : std::vector<float>(
                             std::accumulate(shape.begin(), shape.end(),
                                             size_t{1}, std::multiplies<>()));
  };
  const auto linear = [&](const std::string& name, int outputs, int inputs,
                          bool biased) {
    std::vector<float> bias;
    if (biased) bias = floats(name + ".bias", {outputs});
    return Linear(floats(name + ".weight", {outputs, inputs}), std::move(bias),
                  outputs, inputs, compute);
  };
  const ModelConfig& c = config_;
  const int q = c.num_heads * c.head_dim;
  const int kv = c.num_kv_heads * c.head_dim;
  const bool bias = c.attention_bias;
  Layer layer{
      floats("input_layernorm.weight", {c.hidden_size}),
      floats("post_attention_layernorm.weight", {c.hidden_size}),
      linear("self_attn.q_proj", q, c.hidden_size, bias),
      linear("self_attn.k_proj", kv, c.hidden_size, bias),
      linear("self_attn.v_proj", kv, c.hidden_size, bias),
      linear("self_attn.o_proj", c.hidden_size, q, c.output_bias),
      linear("mlp.gate_proj", c.intermediate_size, c.hidden_size, false),
      linear("mlp.up_proj", c.intermediate_size, c.hidden_size, false),
      linear("mlp.down_proj", c.hidden_size, c.intermediate_size, false)};
  if (!error.ok()) return error;
  return layer;
}

absl::Status Llama::CheckCall(const KvCache& cache,
                              absl::Span<const int32_t> tokens,
                              absl::Span<const int32_t> positions) const {
  if (tokens.empty() || tokens.size() != positions.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(tokens.size(), " tokens with ", positions.size(),
                     " positions, expected equal numbers, at least one"));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= config_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", i, " is ", tokens[i], ", the vocabulary has ",
                       config_.vocab_size));
    }
    if (positions[i] < 0) {
      return absl::OutOfRangeError(
          absl::StrCat("position ", i, " is ", positions[i]));
    }
  }
  const size_t needed = tokens.size() + static_cast<size_t>(cache.size());
  if (needed > static_cast<size_t>(cache.capacity())) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the cache holds ", cache.capacity(), " tokens, ", needed,
                     " are needed"));
  }
  if (cache.view().shape() != ShapeOf(spec_, cache.capacity())) {
    return absl::InvalidArgumentError("the cache is of another model");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> Llama::Prefill(
    KvCache& cache, absl::Span<const int32_t> tokens,
    absl::Span<const int32_t> positions, const Mask& mask, bool all) const {
  if (absl::Status status = CheckCall(cache, tokens, positions); !status.ok()) {
    return status;
  }
  const int rows = static_cast<int>(tokens.size());
  const size_t hidden = static_cast<size_t>(config_.hidden_size);
  Rows call{positions, {}, {}};
  call.cos.resize(static_cast<size_t>(rows) * rope_.pairs());
  call.sin.resize(call.cos.size());
  std::vector<float> h(rows * hidden);
  for (int row = 0; row < rows; ++row) {
    const size_t at = static_cast<size_t>(row) * rope_.pairs();
    rope_.CosSin(positions[row], &call.cos[at], &call.sin[at]);
    std::copy_n(&embedding_[static_cast<size_t>(tokens[row]) * hidden], hidden,
                &h[static_cast<size_t>(row) * hidden]);
  }
  const int begin = cache.size();
  cache.Append(positions);
  for (int number = 0; number < config_.num_layers; ++number) {
    const Layer& layer = layers_[number];
    std::vector<float> y =
        RmsNorm(h, layer.attention_norm, config_.rms_norm_eps);
    WriteKv(call, number, layer.k.Apply(y, rows), layer.v.Apply(y, rows), cache,
            begin);
    AddInto(h, layer.o.Apply(
                   Attend(call, number, layer.q.Apply(y, rows), cache, mask),
                   rows));
    y = RmsNorm(h, layer.mlp_norm, config_.rms_norm_eps);
    std::vector<float> gate = layer.gate.Apply(y, rows);
    const std::vector<float> up = layer.up.Apply(y, rows);
    for (size_t i = 0; i < gate.size(); ++i) {
      gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
    }
    AddInto(h, layer.down.Apply(gate, rows));
  }
  if (!all) h.erase(h.begin(), h.end() - static_cast<ptrdiff_t>(hidden));
  return output_->Apply(RmsNorm(h, final_norm_, config_.rms_norm_eps),
                        all ? rows : 1);
}

void Llama::WriteKv(const Rows& rows, int layer, absl::Span<const float> k,
                    absl::Span<const float> v, KvCache& cache,
                    int begin) const {
  const int dim = config_.head_dim;
  std::vector<float> head(dim);
  for (int row = 0; row < static_cast<int>(rows.positions.size()); ++row) {
    const size_t turn = static_cast<size_t>(row) * rope_.pairs();
    for (int h = 0; h < config_.num_kv_heads; ++h) {
      const size_t at =
          (static_cast<size_t>(row) * config_.num_kv_heads + h) * dim;
      std::copy_n(&k[at], dim, head.data());
      rope_.Rotate(&rows.cos[turn], &rows.sin[turn], head.data());
      StoreFloats(spec_.dtype, head.data(), dim,
                  cache.view().At(layer, KvPart::kK, h, begin + row));
      StoreFloats(spec_.dtype, &v[at], dim,
                  cache.view().At(layer, KvPart::kV, h, begin + row));
    }
  }
}

std::vector<float> Llama::Attend(const Rows& rows, int layer,
                                 std::vector<float> q, const KvCache& cache,
                                 const Mask& mask) const {
  std::vector<float> out(q.size());
  // The threads are those of oneDNN, which waits for work on them.
  [[maybe_unused]] const bool many =
      rows.positions.size() * cache.size() >= kPairsPerThread;
#pragma omp parallel for if (many)
  for (int kv_head = 0; kv_head < config_.num_kv_heads; ++kv_head) {
    AttendHead(rows, layer, kv_head, absl::MakeSpan(q), cache, mask,
               absl::MakeSpan(out));
  }
  return out;
}

void Llama::AttendHead(const Rows& rows, int layer, int kv_head,
                       absl::Span<float> q, const KvCache& cache,
                       const Mask& mask, absl::Span<float> out) const {
  const int dim = config_.head_dim;
  const int slots = cache.size();
  const int group = config_.num_heads / config_.num_kv_heads;
  std::vector<float> keys(static_cast<size_t>(slots) * dim);
  std::vector<float> values(keys.size());
  LoadFloats(spec_.dtype, cache.view().At(layer, KvPart::kK, kv_head, 0),
             keys.size(), keys.data());
  LoadFloats(spec_.dtype, cache.view().At(layer, KvPart::kV, kv_head, 0),
             values.size(), values.data());
  HeadAttention attention(keys, std::move(values), dim);
  HeadAttention::Allowed allowed(slots);
  for (int row = 0; row < static_cast<int>(rows.positions.size()); ++row) {
    for (int slot = 0; slot < slots; ++slot) {
      allowed[slot] =
          mask(rows.positions[row], cache.positions()[slot], slot) ? 1 : 0;
    }
    const size_t turn = static_cast<size_t>(row) * rope_.pairs();
    for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      const size_t at =
          (static_cast<size_t>(row) * config_.num_heads + h) * dim;
      rope_.Rotate(&rows.cos[turn], &rows.sin[turn], &q[at]);
      attention.Attend(q.subspan(at, dim), allowed, out.subspan(at, dim));
    }
  }
}

absl::StatusOr<std::vector<float>> Llama::PrefillInChunks(
    KvCache& cache, absl::Span<const int32_t> tokens,
    int32_t first_position) const {
  absl::StatusOr<std::vector<float>> logits =
      absl::InvalidArgumentError("no tokens to prefill");
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), first_position);
  const absl::Span<const int32_t> all(positions);
  for (size_t at = 0; at < tokens.size();) {
    const size_t count = static_cast<size_t>(kChunkTokens) -
                         static_cast<size_t>(cache.size()) % kChunkTokens;
    logits = Prefill(cache, tokens.subspan(at, count), all.subspan(at, count));
    if (!logits.ok()) return logits;
    at += count;
  }
  return logits;
}

absl::StatusOr<std::vector<int32_t>> Llama::Decode(KvCache& cache,
                                                   std::vector<float> logits,
                                                   int count) const {
  std::vector<int32_t> tokens;
  while (static_cast<int>(tokens.size()) < count) {
    const int32_t token = Argmax(logits);
    const auto& eos = config_.eos_token_ids;
    if (std::find(eos.begin(), eos.end(), token) != eos.end()) break;
    tokens.push_back(token);
    if (static_cast<int>(tokens.size()) == count) break;
    const int32_t position =
        cache.size() == 0 ? 0
                          : 1 + *std::max_element(cache.positions().begin(),
                                                  cache.positions().end());
    absl::StatusOr<std::vector<float>> next =
        Prefill(cache, {token}, {position});
    if (!next.ok()) return next.status();
    logits = *std::move(next);
  }
  return tokens;
}

int32_t Argmax(absl::Span<const float> logits) {
  KDN_CHECK(!logits.empty(), "a vocabulary is not empty");
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) -
                              logits.begin());
}

}  // namespace kdn::model
