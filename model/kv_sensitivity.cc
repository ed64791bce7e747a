#include "model/kv_sensitivity.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "kv/check.h"
#include "kv/line_vector.h"
#include "model/operand_rows.h"
#include "model/parallel.h"

namespace kdn::model {
namespace {

// Rows of floats, [rows][width].
struct Rows {
  size_t width = 0;
  std::vector<float> values;

  Rows() = default;
  Rows(size_t rows, size_t wide) : width(wide), values(rows * wide) {}
  size_t rows() const { return values.size() / width; }
  float* At(size_t row, size_t column = 0) {
    return values.data() + row * width + column;
  }
  const float* At(size_t row, size_t column = 0) const {
    return values.data() + row * width + column;
  }
  Rows Transposed() const {
    Rows result(width, rows());
    for (size_t i = 0; i < rows(); ++i) {
      for (size_t j = 0; j < width; ++j) result.At(j)[i] = At(i)[j];
    }
    return result;
  }
  Rows& operator+=(const Rows& other) {
    for (size_t i = 0; i < values.size(); ++i) values[i] += other.values[i];
    return *this;
  }
};

// a b, on this thread.
Rows Times(const Rows& a, const Rows& b) {
  const size_t inner = a.width;
  const size_t padded = PaddedInner(static_cast<int>(inner));
  Rows left(a.rows(), padded);
  for (size_t i = 0; i < a.rows(); ++i) {
    std::copy_n(a.At(i), inner, left.At(i));
  }
  LineVector<float> panel(padded * kPanelColumns);
  LineVector<float> sums(a.rows() * kPanelColumns);
  Rows result(a.rows(), b.width);
  for (size_t begin = 0; begin < b.width; begin += kPanelColumns) {
    const size_t columns = std::min<size_t>(kPanelColumns, b.width - begin);
    std::fill(panel.begin(), panel.end(), 0.0f);
    for (size_t i = 0; i < inner; ++i) {
      std::copy_n(b.At(i, begin), columns, panel.data() + i * kPanelColumns);
    }
    Product product;
    product.a = left.values.data();
    product.a_stride = padded;
    product.panel = panel.data();
    product.inner = static_cast<int>(inner);
    product.c = sums.data();
    product.c_stride = kPanelColumns;
    product.rows = static_cast<int>(a.rows());
    Multiply(Operand::kFp32, product);
    for (size_t i = 0; i < a.rows(); ++i) {
      std::copy_n(sums.data() + i * kPanelColumns, columns,
                  result.At(i, begin));
    }
  }
  return result;
}

// On all cores.
Rows Apply(const Linear& linear, const Rows& x) {
  const int rows = static_cast<int>(x.rows());
  OperandRows operand;
  operand.Resize(linear.operand(), rows, linear.inputs());
  for (int i = 0; i < rows; ++i) operand.Write(i, 0, x.At(i), linear.inputs());
  Rows y(x.rows(), static_cast<size_t>(linear.outputs()));
  linear.Apply(operand, rows, false, y.values.data());
  return y;
}

float InverseRms(const float* x, size_t width, double epsilon) {
  double squares = 0;
  for (size_t i = 0; i < width; ++i) squares += double{x[i]} * x[i];
  return static_cast<float>(
      1 / std::sqrt(squares / static_cast<double>(width) + epsilon));
}

Rows Normed(const Rows& x, absl::Span<const float> weight, double epsilon) {
  Rows y(x.rows(), x.width);
  for (size_t row = 0; row < x.rows(); ++row) {
    const float scale = InverseRms(x.At(row), x.width, epsilon);
    for (size_t i = 0; i < x.width; ++i) {
      y.At(row)[i] = x.At(row)[i] * scale * weight[i];
    }
  }
  return y;
}

// The gradient at the input of Normed, given the gradient at its output.
Rows NormedBackward(const Rows& x, absl::Span<const float> weight,
                    double epsilon, const Rows& dy) {
  Rows dx(x.rows(), x.width);
  for (size_t row = 0; row < x.rows(); ++row) {
    const float* in = x.At(row);
    const float* out = dy.At(row);
    const float scale = InverseRms(in, x.width, epsilon);
    double along = 0;
    for (size_t i = 0; i < x.width; ++i) {
      along += double{in[i]} * weight[i] * out[i];
    }
    const auto back = static_cast<float>(along * scale * scale * scale /
                                         static_cast<double>(x.width));
    for (size_t i = 0; i < x.width; ++i) {
      dx.At(row)[i] = scale * weight[i] * out[i] - in[i] * back;
    }
  }
  return dx;
}

void SoftmaxRow(float* row, size_t count) {
  const float most = *std::max_element(row, row + count);
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    row[i] = std::exp(row[i] - most);
    sum += row[i];
  }
  for (size_t i = 0; i < count; ++i) {
    row[i] = static_cast<float>(row[i] / sum);
  }
}

// The gradient, at the logits, of the log-probabilities of tokens that the
// model would say: 1 at the token, less all probabilities. The gradients of the
// rows are added up: they do not depend on each other, so the products of two
// rows' gradients are zero on average.
Rows DrawnGradient(const Rows& probabilities, std::mt19937& random) {
  Rows gradient(probabilities.rows(), probabilities.width);
  for (size_t row = 0; row < gradient.rows(); ++row) {
    const float* const p = probabilities.At(row);
    std::discrete_distribution<size_t> choose(p, p + gradient.width);
    const size_t token = choose(random);
    float* const at = gradient.At(row);
    for (size_t i = 0; i < gradient.width; ++i) at[i] = -p[i];
    at[token] += 1;
  }
  return gradient;
}

double SquaresOf(const Rows& x, size_t row) {
  double squares = 0;
  for (size_t i = 0; i < x.width; ++i) {
    squares += double{x.At(row)[i]} * x.At(row)[i];
  }
  return squares;
}

}  // namespace

// The pass over the tokens behind one context, forward and back. Layers are
// computed again on the way back, so that only their inputs are kept.
class KvSensitivity::Pass {
 public:
  Pass(const Llama& llama, const KvCache& cache, size_t rows)
      : llama_(llama),
        config_(llama.config()),
        cache_(cache),
        context_(static_cast<size_t>(cache.size())),
        rows_(rows),
        dim_(static_cast<size_t>(config_.head_dim)),
        group_(config_.num_heads / config_.num_kv_heads) {}

  // Returns the logits.
  Rows Forward(absl::Span<const int32_t> tokens) {
    Rows hidden(rows_, static_cast<size_t>(config_.hidden_size));
    for (size_t row = 0; row < rows_; ++row) {
      std::copy_n(&llama_.weights().embedding[tokens[row] * hidden.width],
                  hidden.width, hidden.At(row));
    }
    for (int layer = 0; layer < config_.num_layers; ++layer) {
      inputs_.push_back(hidden);
      hidden = RunLayer(layer, hidden).out;
    }
    final_ = hidden;
    return Apply(*llama_.weights().output,
                 Normed(hidden, llama_.weights().final_norm, epsilon()));
  }

  // Adds the squares of the gradients of log-probabilities, whose gradients at
  // the logits are `dlogits`, to `squares`: [layer][K|V][KV head][token].
  void Backward(const Rows& dlogits, absl::Span<double> squares) {
    HugeMemory memory;
    Rows gradient = NormedBackward(
        final_, llama_.weights().final_norm, epsilon(),
        Apply(llama_.weights().output->Transposed(memory), dlogits));
    const size_t of_layer =
        2 * static_cast<size_t>(config_.num_kv_heads) * context_;
    for (int layer = config_.num_layers - 1; layer >= 0; --layer) {
      gradient = LayerBackward(layer, gradient,
                               squares.subspan(layer * of_layer, of_layer));
    }
  }

 private:
  // What a layer computes.
  struct Layer {
    Rows qkv;       // rotated
    Rows attended;  // [rows][heads][head_dim]
    Rows middle;    // behind attention
    Rows gate;
    Rows up;
    Rows out;
  };
  // One KV head of a layer.
  struct Head {
    Rows k;  // [context and rows][head_dim], after RoPE
    Rows v;
  };

  double epsilon() const { return config_.rms_norm_eps; }
  float scale() const {
    return 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  }
  size_t QueryAt(int head) const { return head * dim_; }
  size_t KAt(int kv_head) const { return (config_.num_heads + kv_head) * dim_; }
  size_t VAt(int kv_head) const {
    return (config_.num_heads + config_.num_kv_heads + kv_head) * dim_;
  }

  // Turns Q and K of all rows, or turns their gradients back.
  void Rotate(bool back, Rows& qkv) const {
    const RopeTable& rope = llama_.rope();
    std::vector<float> cos(rope.pairs());
    std::vector<float> sin(rope.pairs());
    for (size_t row = 0; row < rows_; ++row) {
      rope.CosSin(static_cast<int32_t>(context_ + row), cos.data(), sin.data());
      // The transpose of a rotation times a factor turns by the opposite angle.
      if (back) {
        for (float& x : sin) x = -x;
      }
      for (int head = 0; head < config_.num_heads + config_.num_kv_heads;
           ++head) {
        rope.Rotate(cos.data(), sin.data(), qkv.At(row, QueryAt(head)));
      }
    }
  }

  Rows Part(const Rows& all, size_t column) const {
    Rows part(rows_, dim_);
    for (size_t row = 0; row < rows_; ++row) {
      std::copy_n(all.At(row, column), dim_, part.At(row));
    }
    return part;
  }
  void AddPart(const Rows& part, size_t first_row, size_t column,
               Rows& all) const {
    for (size_t row = 0; row < rows_; ++row) {
      for (size_t d = 0; d < dim_; ++d) {
        all.At(row, column)[d] += part.At(first_row + row)[d];
      }
    }
  }

  Head HeadOf(int layer, int kv_head, const Rows& qkv) const {
    const KvView kv = cache_.Tokens(0, cache_.size());
    Head head{Rows(context_ + rows_, dim_), Rows(context_ + rows_, dim_)};
    for (size_t token = 0; token < context_; ++token) {
      const int at = static_cast<int>(token);
      LoadFloats(kv.shape().dtype, kv.At(layer, KvPart::kK, kv_head, at), dim_,
                 head.k.At(token));
      LoadFloats(kv.shape().dtype, kv.At(layer, KvPart::kV, kv_head, at), dim_,
                 head.v.At(token));
    }
    for (size_t row = 0; row < rows_; ++row) {
      std::copy_n(qkv.At(row, KAt(kv_head)), dim_, head.k.At(context_ + row));
      std::copy_n(qkv.At(row, VAt(kv_head)), dim_, head.v.At(context_ + row));
    }
    return head;
  }

  // The attention weights of one head, [rows][context and rows].
  Rows WeightsOf(const Rows& queries, const Head& head) const {
    Rows weights = Times(queries, head.k.Transposed());
    for (size_t row = 0; row < rows_; ++row) {
      float* const at = weights.At(row);
      const size_t seen = context_ + row + 1;
      for (size_t i = 0; i < seen; ++i) at[i] *= scale();
      SoftmaxRow(at, seen);
      std::fill(at + seen, at + weights.width, 0.0f);
    }
    return weights;
  }

  Layer RunLayer(int layer, const Rows& hidden) const {
    const LayerWeights& weights = llama_.weights().layers[layer];
    Layer run;
    run.qkv =
        Apply(weights.qkv, Normed(hidden, weights.attention_norm, epsilon()));
    Rotate(false, run.qkv);
    run.attended = Rows(rows_, config_.num_heads * dim_);
    ParallelFor(config_.num_kv_heads, true, Tasks::kAny, [&](int kv_head, int) {
      const Head head = HeadOf(layer, kv_head, run.qkv);
      for (int i = kv_head * group_; i < (kv_head + 1) * group_; ++i) {
        const Rows p = WeightsOf(Part(run.qkv, QueryAt(i)), head);
        AddPart(Times(p, head.v), 0, QueryAt(i), run.attended);
      }
    });
    run.middle = Apply(weights.o, run.attended);
    run.middle += hidden;
    const Rows normed = Normed(run.middle, weights.mlp_norm, epsilon());
    run.gate = Apply(weights.gate, normed);
    run.up = Apply(weights.up, normed);
    Rows mlp(rows_, run.gate.width);
    for (size_t i = 0; i < mlp.values.size(); ++i) {
      const float g = run.gate.values[i];
      mlp.values[i] = g / (1 + std::exp(-g)) * run.up.values[i];
    }
    run.out = Apply(weights.down, mlp);
    run.out += run.middle;
    return run;
  }

  // Returns the gradient at the layer's input.
  Rows LayerBackward(int layer, const Rows& gradient,
                     absl::Span<double> squares) {
    const LayerWeights& weights = llama_.weights().layers[layer];
    const Rows& hidden = inputs_[layer];
    const Layer run = RunLayer(layer, hidden);
    HugeMemory memory;
    Rows middle = MlpBackward(weights, run, gradient, memory);
    middle += gradient;
    const Rows dattended = Apply(weights.o.Transposed(memory), middle);
    Rows dqkv(rows_, run.qkv.width);
    ParallelFor(config_.num_kv_heads, true, Tasks::kAny, [&](int kv_head, int) {
      AttentionBackward(layer, kv_head, run, dattended, squares, dqkv);
    });
    Rotate(true, dqkv);
    Rows result = NormedBackward(hidden, weights.attention_norm, epsilon(),
                                 Apply(weights.qkv.Transposed(memory), dqkv));
    result += middle;
    return result;
  }

  // Returns the gradient at the input of the MLP and its norm.
  Rows MlpBackward(const LayerWeights& weights, const Layer& run,
                   const Rows& gradient, HugeMemory& memory) const {
    const Rows dmlp = Apply(weights.down.Transposed(memory), gradient);
    Rows dgate(rows_, dmlp.width);
    Rows dup(rows_, dmlp.width);
    for (size_t i = 0; i < dmlp.values.size(); ++i) {
      const float g = run.gate.values[i];
      const float sigmoid = 1 / (1 + std::exp(-g));
      dgate.values[i] =
          dmlp.values[i] * run.up.values[i] * sigmoid * (1 + g * (1 - sigmoid));
      dup.values[i] = dmlp.values[i] * g * sigmoid;
    }
    Rows dnormed = Apply(weights.gate.Transposed(memory), dgate);
    dnormed += Apply(weights.up.Transposed(memory), dup);
    return NormedBackward(run.middle, weights.mlp_norm, epsilon(), dnormed);
  }

  // Adds the squares of the gradients at the context's rows to `squares`, and
  // the gradients at the pass's own rows to `dqkv`.
  void AttentionBackward(int layer, int kv_head, const Layer& run,
                         const Rows& dattended, absl::Span<double> squares,
                         Rows& dqkv) const {
    const Head head = HeadOf(layer, kv_head, run.qkv);
    Rows dk(context_ + rows_, dim_);
    Rows dv(context_ + rows_, dim_);
    for (int i = kv_head * group_; i < (kv_head + 1) * group_; ++i) {
      const Rows queries = Part(run.qkv, QueryAt(i));
      const Rows out = Part(dattended, QueryAt(i));
      const Rows p = WeightsOf(queries, head);
      dv += Times(p.Transposed(), out);
      Rows ds = Times(out, head.v.Transposed());
      for (size_t row = 0; row < rows_; ++row) {
        double along = 0;
        for (size_t t = 0; t < ds.width; ++t) {
          along += double{p.At(row)[t]} * ds.At(row)[t];
        }
        for (size_t t = 0; t < ds.width; ++t) {
          ds.At(row)[t] = scale() * p.At(row)[t] *
                          (ds.At(row)[t] - static_cast<float>(along));
        }
      }
      dk += Times(ds.Transposed(), queries);
      AddPart(Times(ds, head.k), 0, QueryAt(i), dqkv);
    }
    // K before RoPE: a rotation keeps the length of a gradient, and the
    // attention factor does not.
    const double factor = config_.rope.attention_factor;
    double* const of_k = &squares[kv_head * context_];
    double* const of_v = of_k + config_.num_kv_heads * context_;
    for (size_t token = 0; token < context_; ++token) {
      of_k[token] += factor * factor * SquaresOf(dk, token);
      of_v[token] += SquaresOf(dv, token);
    }
    AddPart(dk, context_, KAt(kv_head), dqkv);
    AddPart(dv, context_, VAt(kv_head), dqkv);
  }

  const Llama& llama_;
  const ModelConfig& config_;
  const KvCache& cache_;
  size_t context_;
  size_t rows_;
  size_t dim_;
  int group_;
  std::vector<Rows> inputs_;  // of each layer
  Rows final_;
};

KvSensitivity::KvSensitivity(const Llama& llama)
    : llama_(llama),
      sums_(2 * static_cast<size_t>(llama.config().num_layers) *
            llama.config().num_kv_heads) {}

absl::StatusOr<std::vector<double>> KvSensitivity::Add(
    const KvCache& cache, absl::Span<const int32_t> behind, int draws,
    std::mt19937& random) {
  if (behind.empty() || cache.size() < 2) {
    return absl::InvalidArgumentError(
        "a context of at least two tokens, and tokens behind it");
  }
  Pass pass(llama_, cache, behind.size());
  Rows probabilities = pass.Forward(behind);
  for (size_t row = 0; row < probabilities.rows(); ++row) {
    SoftmaxRow(probabilities.At(row), probabilities.width);
  }
  const auto tokens = static_cast<size_t>(cache.size());
  std::vector<double> squares(sums_.size() * tokens);
  for (int draw = 0; draw < draws; ++draw) {
    pass.Backward(DrawnGradient(probabilities, random),
                  absl::MakeSpan(squares));
  }
  const double values = static_cast<double>(tokens - 1) *
                        llama_.config().head_dim *
                        static_cast<double>(behind.size());
  const auto heads = static_cast<size_t>(llama_.config().num_kv_heads);
  std::vector<double> of_tokens(squares.size() / 2);
  for (size_t plane = 0; plane < sums_.size(); ++plane) {
    const double* const from = &squares[plane * tokens];
    sums_[plane] += std::accumulate(from + 1, from + tokens, 0.0) / values;
    const size_t layer = plane / (2 * heads);
    double* const to = &of_tokens[(layer * heads + plane % heads) * tokens];
    for (size_t token = 0; token < tokens; ++token) to[token] += from[token];
  }
  draws_ += draws;
  return of_tokens;
}

std::vector<double> KvSensitivity::Mean() const {
  KDN_CHECK(draws_ > 0, "no context was added");
  std::vector<double> mean = sums_;
  for (double& x : mean) x /= draws_;
  return mean;
}

}  // namespace kdn::model
