#include "reference_pass.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <utility>

#include "kv/check.h"
#include "kv/rope_spec.h"

namespace kdn::model {
namespace {

ModelConfig ConfigOf(const std::string& directory) {
  std::ifstream file(directory + "/config.json");
  std::ostringstream text;
  text << file.rdbuf();
  return ParseConfig(text.str()).value();
}

}  // namespace

ReferencePass::ReferencePass(const std::string& directory)
    : config_(ConfigOf(directory)),
      checkpoint_(Checkpoint::Open(directory).value()) {}

std::vector<float> ReferencePass::Tensor(const std::string& name) const {
  const ModelConfig& c = config_;
  const auto ends = [&](const char* text) { return name.ends_with(text); };
  const int64_t q = int64_t{c.num_heads} * c.head_dim;
  const int64_t kv = int64_t{c.num_kv_heads} * c.head_dim;
  std::vector<int64_t> shape;
  if (ends("q_proj.weight")) {
    shape = {q, c.hidden_size};
  } else if (ends("k_proj.weight") || ends("v_proj.weight")) {
    shape = {kv, c.hidden_size};
  } else if (ends("o_proj.weight")) {
    shape = {c.hidden_size, q};
  } else if (ends("gate_proj.weight") || ends("up_proj.weight")) {
    shape = {c.intermediate_size, c.hidden_size};
  } else if (ends("down_proj.weight")) {
    shape = {c.hidden_size, c.intermediate_size};
  } else if (ends("embed_tokens.weight") || ends("lm_head.weight")) {
    shape = {c.vocab_size, c.hidden_size};
  } else if (ends("q_proj.bias")) {
    shape = {q};
  } else if (ends("k_proj.bias") || ends("v_proj.bias")) {
    shape = {kv};
  } else {
    shape = {c.hidden_size};
  }
  return checkpoint_.GetFloats(name, shape).value();
}

ReferencePass::Rows ReferencePass::Times(const Rows& x, const std::string& name,
                                         bool biased) const {
  const std::vector<float> w = Tensor(name + ".weight");
  const std::vector<float> bias =
      biased ? Tensor(name + ".bias") : std::vector<float>();
  const size_t inputs = x[0].size();
  Rows y(x.size(), std::vector<float>(w.size() / inputs));
  for (size_t row = 0; row < x.size(); ++row) {
    for (size_t out = 0; out < y[row].size(); ++out) {
      double sum = biased ? bias[out] : 0.0;
      for (size_t i = 0; i < inputs; ++i) {
        sum += static_cast<double>(x[row][i]) * w[out * inputs + i];
      }
      y[row][out] = static_cast<float>(sum);
    }
  }
  return y;
}

ReferencePass::Rows ReferencePass::Normed(const Rows& x,
                                          const std::string& name) const {
  const std::vector<float> weight = Tensor(name + ".weight");
  Rows y = x;
  for (std::vector<float>& row : y) {
    double sum = 0.0;
    for (const float value : row) sum += static_cast<double>(value) * value;
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(row.size()) +
                                         config_.rms_norm_eps);
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = static_cast<float>(row[i] * scale * weight[i]);
    }
  }
  return y;
}

void ReferencePass::Rotate(Rows& x,
                           const std::vector<int32_t>& positions) const {
  const RopeTable rope(config_.rope);
  std::vector<float> cos(rope.pairs());
  std::vector<float> sin(rope.pairs());
  for (size_t row = 0; row < x.size(); ++row) {
    rope.CosSin(positions[row], cos.data(), sin.data());
    for (size_t at = 0; at < x[row].size(); at += config_.head_dim) {
      rope.Rotate(cos.data(), sin.data(), &x[row][at]);
    }
  }
}

ReferencePass::Rows ReferencePass::Attend(const Rows& q, const Rows& k,
                                          const Rows& v,
                                          const Allowed& allowed) {
  const int dim = config_.head_dim;
  const int group = config_.num_heads / config_.num_kv_heads;
  const int tokens = static_cast<int>(q.size());
  Rows out(q.size(), std::vector<float>(q[0].size()));
  std::vector<double>& mass = mass_.emplace_back(q.size());
  std::vector<double> weights(q.size());
  for (int query = 0; query < tokens; ++query) {
    for (int head = 0; head < config_.num_heads; ++head) {
      const float* const a = &q[query][head * dim];
      const int at = head / group * dim;
      double sum = 0.0;
      for (int key = 0; key < tokens; ++key) {
        double score = 0.0;
        for (int i = 0; i < dim; ++i) {
          score += static_cast<double>(a[i]) * k[key][at + i];
        }
        weights[key] =
            allowed(query, key) ? std::exp(score / std::sqrt(dim)) : 0.0;
        sum += weights[key];
      }
      if (sum == 0.0) continue;
      for (int key = 0; key < tokens; ++key) {
        mass[key] += weights[key] / sum;
        for (int i = 0; i < dim; ++i) {
          out[query][head * dim + i] +=
              static_cast<float>(weights[key] / sum * v[key][at + i]);
        }
      }
    }
  }
  return out;
}

std::vector<float> ReferencePass::Run(const std::vector<int32_t>& tokens,
                                      const std::vector<int32_t>& positions,
                                      const Allowed& allowed) {
  const ModelConfig& c = config_;
  mass_.clear();
  const std::vector<float> embedding = Tensor("model.embed_tokens.weight");
  Rows h;
  for (const int32_t token : tokens) {
    const auto row = embedding.begin() + token * c.hidden_size;
    h.emplace_back(row, row + c.hidden_size);
  }
  const auto add = [](Rows& sum, const Rows& term) {
    for (size_t row = 0; row < sum.size(); ++row) {
      for (size_t i = 0; i < sum[row].size(); ++i) sum[row][i] += term[row][i];
    }
  };
  for (int layer = 0; layer < c.num_layers; ++layer) {
    const std::string at = "model.layers." + std::to_string(layer) + ".";
    Rows x = Normed(h, at + "input_layernorm");
    Rows q = Times(x, at + "self_attn.q_proj", c.attention_bias);
    Rows k = Times(x, at + "self_attn.k_proj", c.attention_bias);
    Rotate(q, positions);
    Rotate(k, positions);
    add(h,
        Times(Attend(q, k, Times(x, at + "self_attn.v_proj", c.attention_bias),
                     allowed),
              at + "self_attn.o_proj", c.output_bias));
    x = Normed(h, at + "post_attention_layernorm");
    Rows gate = Times(x, at + "mlp.gate_proj", false);
    const Rows up = Times(x, at + "mlp.up_proj", false);
    for (size_t row = 0; row < gate.size(); ++row) {
      for (size_t i = 0; i < gate[row].size(); ++i) {
        const float g = gate[row][i];
        gate[row][i] = g / (1.0f + std::exp(-g)) * up[row][i];
      }
    }
    add(h, Times(gate, at + "mlp.down_proj", false));
  }
  const Rows logits =
      Times(Normed(h, "model.norm"),
            c.tie_word_embeddings ? "model.embed_tokens" : "lm_head", false);
  std::vector<float> all;
  for (const auto& row : logits) all.insert(all.end(), row.begin(), row.end());
  return all;
}

}  // namespace kdn::model
