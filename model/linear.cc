#include "model/linear.h"

#include <bit>
#include <dnnl.hpp>
#include <unordered_map>
#include <utility>

#include "kv/check.h"
#include "kv/dtype.h"

namespace kdn::model {
namespace {

using dnnl::memory;

// Each thread has its own engine and stream: oneDNN streams are not shared.
struct Device {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
};

Device& ThisThreadsDevice() {
  thread_local Device device;
  return device;
}

// Converts to bf16 and fills up with zeros to `padded` values.
std::vector<uint16_t> ToBf16(absl::Span<const float> values, size_t padded) {
  std::vector<uint16_t> bits(padded);
  for (size_t i = 0; i < values.size(); ++i) bits[i] = FloatToBf16(values[i]);
  return bits;
}

// The number of rows to compute, of which those behind `rows` are zeros. oneDNN
// generates a kernel for each number of rows, which takes longer than running
// it for a small model. So only a few numbers are used.
int PaddedRows(int rows) {
  constexpr int kStep = 256;
  if (rows > kStep) return (rows + kStep - 1) / kStep * kStep;
  return static_cast<int>(std::bit_ceil(static_cast<unsigned>(rows)));
}

}  // namespace

struct Linear::Impl {
  Compute compute;
  std::vector<float> fp32;
  std::vector<uint16_t> bf16;
  std::vector<float> bias;
  // One primitive for each number of rows. PaddedRows keeps them few.
  mutable std::unordered_map<int, dnnl::matmul> primitives;

  void* weights() {
    return compute == Compute::kBf16 ? static_cast<void*>(bf16.data())
                                     : static_cast<void*>(fp32.data());
  }
};

Linear::Linear(std::vector<float> weights, std::vector<float> bias, int outputs,
               int inputs, Compute compute)
    : outputs_(outputs), inputs_(inputs), impl_(std::make_unique<Impl>()) {
  KDN_CHECK(weights.size() == static_cast<size_t>(outputs) * inputs,
            "weights have the size of their shape");
  KDN_CHECK(bias.empty() || bias.size() == static_cast<size_t>(outputs),
            "a bias has one element per output");
  impl_->compute = compute;
  impl_->bias = std::move(bias);
  if (compute == Compute::kBf16) {
    impl_->bf16 = ToBf16(weights, weights.size());
  } else {
    impl_->fp32 = std::move(weights);
  }
}

Linear::~Linear() = default;
Linear::Linear(Linear&&) noexcept = default;
Linear& Linear::operator=(Linear&&) noexcept = default;

std::vector<float> Linear::Apply(absl::Span<const float> x, int rows) const {
  KDN_CHECK(rows > 0 && x.size() == static_cast<size_t>(rows) * inputs_,
            "the input has the size of its shape");
  Device& device = ThisThreadsDevice();
  const int padded = PaddedRows(rows);
  const size_t padded_inputs = static_cast<size_t>(padded) * inputs_;
  const memory::data_type type = impl_->compute == Compute::kBf16
                                     ? memory::data_type::bf16
                                     : memory::data_type::f32;
  const memory::desc x_desc({padded, inputs_}, type, memory::format_tag::ab);
  const memory::desc w_desc({inputs_, outputs_}, type, memory::format_tag::ba);
  const memory::desc y_desc({padded, outputs_}, memory::data_type::f32,
                            memory::format_tag::ab);
  auto primitive = impl_->primitives.find(padded);
  if (primitive == impl_->primitives.end()) {
    const dnnl::matmul::primitive_desc description(
        dnnl::matmul::desc(x_desc, w_desc, y_desc), device.engine);
    primitive =
        impl_->primitives.emplace(padded, dnnl::matmul(description)).first;
  }
  std::vector<uint16_t> bf16;
  std::vector<float> fp32;
  void* input = nullptr;
  if (impl_->compute == Compute::kBf16) {
    bf16 = ToBf16(x, padded_inputs);
    input = bf16.data();
  } else {
    fp32.assign(x.begin(), x.end());
    fp32.resize(padded_inputs);
    input = fp32.data();
  }
  std::vector<float> y(static_cast<size_t>(padded) * outputs_);
  primitive->second.execute(
      device.stream,
      {{DNNL_ARG_SRC, memory(x_desc, device.engine, input)},
       {DNNL_ARG_WEIGHTS, memory(w_desc, device.engine, impl_->weights())},
       {DNNL_ARG_DST, memory(y_desc, device.engine, y.data())}});
  device.stream.wait();
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
