#ifndef KDN_CODEC_TRANSFORM_ANALYSIS_H_
#define KDN_CODEC_TRANSFORM_ANALYSIS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "codec/kernels/isa.h"
#include "kv/line_vector.h"

namespace kdn::codec {

// The matrix that takes rows to components, for the encoder. Instruction sets
// round differently: which integer near it a component is rounded to may depend
// on the CPU, what a decoder makes of it does not. Immutable.
class AnalysisMatrix {
 public:
  // No sum is off by more than this part of the magnitudes that it adds, what
  // is below the smallest normal float aside. Tiles round both factors to bf16,
  // about as coarsely as most engines' values came.
  static constexpr double kRounding = 0x1p-7;

  AnalysisMatrix() = default;
  // `values` is [components][dim]. REQUIRES: components is a multiple of 16.
  AnalysisMatrix(int components, int dim, absl::Span<const float> values);

  int dim() const { return dim_; }
  int components() const { return components_; }
  // The largest sum of magnitudes of a component: how far it can move when no
  // value of a row moves by more than 1.
  double norm() const { return norm_; }

  // out[t][c] = sum over d of value(c, d) * rows[t][d]. Rows are dim() apart,
  // the output's components().
  void Apply(const float* rows, int tokens, float* out, Isa isa) const;

 private:
  int components_ = 0;
  int dim_ = 0;
  double norm_ = 0;
  LineVector<float> by_dim_;  // [dim][components]
  // The same in bf16, [components / 16][dim / 2][16][2]; there when dim is a
  // multiple of 32.
  LineVector<uint16_t> tiles_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_ANALYSIS_H_
