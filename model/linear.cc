#include "model/linear.h"

#include <bit>
#include <dnnl.hpp>
#include <unordered_map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kv/check.h"
#include "kv/dtype.h"

namespace kdn::model {
namespace {

using dnnl::memory;

// A primitive works only with the engine that made it, so all threads share
// one. It is immutable.
const dnnl::engine& TheEngine() {
  static const dnnl::engine* const engine =
      new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

// Each thread has its own stream: streams are not shared.
dnnl::stream& ThisThreadsStream() {
  thread_local dnnl::stream stream(TheEngine());
  return stream;
}

// Converts to bf16 and fills up with zeros to `padded` values.
std::vector<uint16_t> ToBf16(absl::Span<const float> values, size_t padded) {
  std::vector<uint16_t> bits(padded);
  for (size_t i = 0; i < values.size(); ++i) bits[i] = FloatToBf16(values[i]);
  return bits;
}

// Rounds to bf16, as fp32, and fills up with zeros to `padded` values.
std::vector<float> RoundToBf16(absl::Span<const float> values, size_t padded) {
  std::vector<float> rounded(padded);
  for (size_t i = 0; i < values.size(); ++i) {
    rounded[i] = Bf16ToFloat(FloatToBf16(values[i]));
  }
  return rounded;
}

// The number of rows to compute, of which those behind `rows` are zeros. oneDNN
// generates a kernel for each number of rows, which takes longer than running
// it for a small model. So only a few numbers are used.
int PaddedRows(int rows) {
  constexpr int kStep = 256;
  if (rows > kStep) return (rows + kStep - 1) / kStep * kStep;
  return static_cast<int>(std::bit_ceil(static_cast<unsigned>(rows)));
}

// The shapes of x, W^T and y in one call, with the type of x and W.
struct Shapes {
  Shapes(int rows, int inputs, int outputs, memory::data_type type)
      : x({rows, inputs}, type, memory::format_tag::ab),
        w({inputs, outputs}, type, memory::format_tag::ba),
        y({rows, outputs}, memory::data_type::f32, memory::format_tag::ab) {}

  // Throws dnnl::error if oneDNN has no kernel for them on this CPU. The caller
  // gives each execution scratch memory of its own (mode user), so that threads
  // may execute the primitive at the same time.
  dnnl::matmul::primitive_desc Describe() const {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return {dnnl::matmul::desc(x, w, y), attributes, TheEngine()};
  }

  memory::desc x, w, y;
};

bool HasBf16() {
  static const bool has = [] {
    try {
      Shapes(1, 16, 16, memory::data_type::bf16).Describe();
      return true;
    } catch (const dnnl::error&) {
      return false;
    }
  }();
  return has;
}

}  // namespace

struct Linear::Impl {
  struct Primitive {
    dnnl::matmul matmul;
    memory::desc scratch;
  };

  bool rounds = false;      // inputs are rounded to bf16
  std::vector<float> fp32;  // the weights; empty if bf16 has them
  std::vector<uint16_t> bf16;
  std::vector<float> bias;
  absl::Mutex mutex;
  // One for each number of rows. PaddedRows keeps them few.
  std::unordered_map<int, Primitive> primitives ABSL_GUARDED_BY(mutex);

  memory::data_type type() const {
    return bf16.empty() ? memory::data_type::f32 : memory::data_type::bf16;
  }
  void* weights() {
    return bf16.empty() ? static_cast<void*>(fp32.data())
                        : static_cast<void*>(bf16.data());
  }
  Primitive PrimitiveFor(int rows, const Shapes& shapes) {
    const absl::MutexLock lock(&mutex);
    const auto found = primitives.find(rows);
    if (found != primitives.end()) return found->second;
    const dnnl::matmul::primitive_desc description = shapes.Describe();
    return primitives
        .emplace(rows, Primitive{dnnl::matmul(description),
                                 description.scratchpad_desc()})
        .first->second;
  }
  // Executes the primitive on the converted input.
  void Execute(int rows, const Shapes& shapes, void* input, float* y) {
    const Primitive primitive = PrimitiveFor(rows, shapes);
    const dnnl::engine& engine = TheEngine();
    dnnl::stream& stream = ThisThreadsStream();
    primitive.matmul.execute(
        stream, {{DNNL_ARG_SRC, memory(shapes.x, engine, input)},
                 {DNNL_ARG_WEIGHTS, memory(shapes.w, engine, weights())},
                 {DNNL_ARG_DST, memory(shapes.y, engine, y)},
                 {DNNL_ARG_SCRATCHPAD, memory(primitive.scratch, engine)}});
    stream.wait();
  }
};

Linear::Linear(std::vector<float> weights, std::vector<float> bias, int outputs,
               int inputs, Compute compute)
    : outputs_(outputs), inputs_(inputs), impl_(std::make_unique<Impl>()) {
  KDN_CHECK(weights.size() == static_cast<size_t>(outputs) * inputs,
            "weights have the size of their shape");
  KDN_CHECK(bias.empty() || bias.size() == static_cast<size_t>(outputs),
            "a bias has one element per output");
  impl_->bias = std::move(bias);
  impl_->rounds = compute == Compute::kBf16;
  if (!impl_->rounds) {
    impl_->fp32 = std::move(weights);
  } else if (HasBf16()) {
    impl_->bf16 = ToBf16(weights, weights.size());
  } else {
    impl_->fp32 = RoundToBf16(weights, weights.size());
  }
}

Linear::~Linear() = default;
Linear::Linear(Linear&&) noexcept = default;
Linear& Linear::operator=(Linear&&) noexcept = default;

std::vector<float> Linear::Apply(absl::Span<const float> x, int rows) const {
  KDN_CHECK(rows > 0 && x.size() == static_cast<size_t>(rows) * inputs_,
            "the input has the size of its shape");
  const int padded = PaddedRows(rows);
  const size_t padded_inputs = static_cast<size_t>(padded) * inputs_;
  const Shapes shapes(padded, inputs_, outputs_, impl_->type());
  std::vector<float> y(static_cast<size_t>(padded) * outputs_);
  if (impl_->type() == memory::data_type::bf16) {
    std::vector<uint16_t> input = ToBf16(x, padded_inputs);
    impl_->Execute(padded, shapes, input.data(), y.data());
  } else if (impl_->rounds) {
    std::vector<float> input = RoundToBf16(x, padded_inputs);
    impl_->Execute(padded, shapes, input.data(), y.data());
  } else {
    std::vector<float> input(x.begin(), x.end());
    input.resize(padded_inputs);
    impl_->Execute(padded, shapes, input.data(), y.data());
  }
  y.resize(static_cast<size_t>(rows) * outputs_);
  if (!impl_->bias.empty()) {
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < outputs_; ++i) {
        y[static_cast<size_t>(row) * outputs_ + i] += impl_->bias[i];
      }
    }
  }
  return y;
}

}  // namespace kdn::model
