#include "bench/gemm_limit.h"

#include <cstring>
#include <dnnl.hpp>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "kv/clock.h"

namespace kdn::bench {
namespace {

using dnnl::memory;

struct Shape {
  int inputs = 0;
  int outputs = 0;
};

std::vector<Shape> ShapesOf(const model::ModelConfig& config) {
  const int hidden = config.hidden_size;
  const int q = config.num_heads * config.head_dim;
  const int kv = config.num_kv_heads * config.head_dim;
  return {{hidden, q + 2 * kv},
          {q, hidden},
          {hidden, 2 * config.intermediate_size},
          {config.intermediate_size, hidden}};
}

struct Matrix {
  dnnl::matmul product;
  std::unordered_map<int, memory> arguments;
};

// Memory whose pages are there.
memory Filled(const memory::desc& description, const dnnl::engine& engine) {
  memory filled(description, engine);
  std::memset(filled.get_data_handle(), 0, description.get_size());
  return filled;
}

Matrix MatrixOf(const Shape& shape, int rows, memory::data_type type,
                const dnnl::engine& engine) {
  const memory::desc x({rows, shape.inputs}, type, memory::format_tag::ab);
  const memory::desc w({shape.inputs, shape.outputs}, type,
                       memory::format_tag::any);
  const memory::desc y({rows, shape.outputs}, memory::data_type::f32,
                       memory::format_tag::ab);
  const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(x, w, y),
                                            engine);
  return Matrix{dnnl::matmul(chosen),
                {{DNNL_ARG_SRC, Filled(chosen.src_desc(), engine)},
                 {DNNL_ARG_WEIGHTS, Filled(chosen.weights_desc(), engine)},
                 {DNNL_ARG_DST, Filled(chosen.dst_desc(), engine)}}};
}

}  // namespace

struct GemmLimit::Impl {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<Matrix> matrices;
  std::string dtype;
  double flops = 0;
};

GemmLimit::GemmLimit(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GemmLimit::GemmLimit(GemmLimit&&) noexcept = default;
GemmLimit& GemmLimit::operator=(GemmLimit&&) noexcept = default;
GemmLimit::~GemmLimit() = default;

const std::string& GemmLimit::dtype() const { return impl_->dtype; }

absl::StatusOr<GemmLimit> GemmLimit::Create(const model::ModelConfig& config,
                                            int rows) {
  std::string reason;
  for (const auto& [type, name] : {std::pair{memory::data_type::bf16, "bf16"},
                                   std::pair{memory::data_type::f32, "fp32"}}) {
    try {
      auto impl = std::make_unique<Impl>();
      impl->dtype = name;
      for (const Shape& shape : ShapesOf(config)) {
        impl->matrices.push_back(MatrixOf(shape, rows, type, impl->engine));
        impl->flops += 2.0 * rows * shape.inputs * shape.outputs;
      }
      return GemmLimit(std::move(impl));
    } catch (const dnnl::error& error) {
      reason = error.what();
    }
  }
  return absl::UnavailableError(absl::StrCat("oneDNN: ", reason));
}

double GemmLimit::Measure() {
  constexpr int kTimes = 8;
  const absl::Time begin = SteadyNow();
  for (int i = 0; i < kTimes; ++i) {
    for (Matrix& matrix : impl_->matrices) {
      matrix.product.execute(impl_->stream, matrix.arguments);
    }
  }
  impl_->stream.wait();
  return kTimes * impl_->flops / absl::ToDoubleSeconds(SteadyNow() - begin);
}

}  // namespace kdn::bench
