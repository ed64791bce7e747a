#include "model/row_metrics.h"

#include <utility>

#include "kv/check.h"
#include "model/operand_rows.h"

namespace kdn::model {
namespace {

// The distances between a query and a row: 0, 4, ... up to the length of the
// windows that calibrate.
constexpr int kDistances = 256;
constexpr int kDistanceStep = 4;
// Moments need fewer queries than passes have.
constexpr size_t kQueryStep = 4;

void Transpose(size_t dim, std::vector<float>& m) {
  for (size_t a = 0; a < dim; ++a) {
    for (size_t b = 0; b < a; ++b) std::swap(m[a * dim + b], m[b * dim + a]);
  }
}

// The mean of R m R' over the rotations R of all distances. `m` is symmetric.
std::vector<double> MeanOverDistances(const RopeTable& rope,
                                      const std::vector<float>& m, size_t dim) {
  std::vector<float> cos(rope.pairs());
  std::vector<float> sin(rope.pairs());
  std::vector<double> mean(m.size());
  for (int i = 0; i < kDistances; ++i) {
    rope.DeltaCosSin(0, i * kDistanceStep, cos.data(), sin.data());
    std::vector<float> turned = m;
    for (int side = 0; side < 2; ++side) {
      for (size_t d = 0; d < dim; ++d) {
        rope.Rotate(cos.data(), sin.data(), &turned[d * dim]);
      }
      Transpose(dim, turned);
    }
    for (size_t j = 0; j < m.size(); ++j) {
      mean[j] += static_cast<double>(turned[j]) / kDistances;
    }
  }
  return mean;
}

}  // namespace

RowMetrics::RowMetrics(const Llama& llama)
    : llama_(llama),
      heads_per_kv_head_(llama.config().num_heads /
                         llama.config().num_kv_heads),
      head_dim_(static_cast<size_t>(llama.config().head_dim)),
      moments_(static_cast<size_t>(llama.config().num_layers) *
               llama.config().num_kv_heads) {
  for (Moments& moments : moments_) moments.sum.resize(head_dim_ * head_dim_);
}

void RowMetrics::OnQueries(int layer, absl::Span<const float> rows,
                           size_t stride) {
  const int kv_heads = llama_.config().num_kv_heads;
  for (size_t at = 0; at < rows.size(); at += kQueryStep * stride) {
    for (int head = 0; head < llama_.config().num_heads; ++head) {
      const float* query = rows.data() + at + head * head_dim_;
      Moments& moments =
          moments_[static_cast<size_t>(layer) * kv_heads +
                   static_cast<size_t>(head / heads_per_kv_head_)];
      for (size_t a = 0; a < head_dim_; ++a) {
        double* row = &moments.sum[a * head_dim_];
        for (size_t b = 0; b < head_dim_; ++b) {
          row[b] += static_cast<double>(query[a]) * query[b];
        }
      }
      ++moments.queries;
    }
  }
}

std::vector<double> RowMetrics::OfK(int layer, int kv_head) const {
  const Moments& moments =
      moments_[static_cast<size_t>(layer) * llama_.config().num_kv_heads +
               kv_head];
  KDN_CHECK(moments.queries > 0, "no pass has run the layer");
  std::vector<float> mean;
  for (const double x : moments.sum) {
    mean.push_back(static_cast<float>(x / moments.queries));
  }
  return MeanOverDistances(llama_.rope(), mean, head_dim_);
}

std::vector<double> RowMetrics::OfV(int layer, int kv_head) const {
  const Linear& output = llama_.weights().layers[layer].o;
  const auto width = static_cast<size_t>(output.outputs());
  const auto dim = static_cast<int>(head_dim_);
  OperandRows units;
  std::vector<float> columns(head_dim_ * width);
  std::vector<double> metric(head_dim_ * head_dim_);
  for (int i = 0; i < heads_per_kv_head_; ++i) {
    // The columns of the output matrix that read this head are the products
    // with unit vectors.
    const int first = (kv_head * heads_per_kv_head_ + i) * dim;
    units.Resize(output.operand(), dim, output.inputs());
    std::vector<float> unit(output.inputs());
    for (int d = 0; d < dim; ++d) {
      unit[first + d] = 1;
      units.Write(d, 0, unit.data(), output.inputs());
      unit[first + d] = 0;
    }
    output.Apply(units, dim, false, columns.data());
    for (size_t a = 0; a < head_dim_; ++a) {
      for (size_t b = 0; b <= a; ++b) {
        double sum = 0;
        for (size_t o = 0; o < width; ++o) {
          sum += static_cast<double>(columns[a * width + o]) *
                 columns[b * width + o];
        }
        metric[a * head_dim_ + b] += sum;
        if (a != b) metric[b * head_dim_ + a] += sum;
      }
    }
  }
  return metric;
}

}  // namespace kdn::model
