#ifndef KDN_CODEC_TRANSFORM_ANALYSIS_H_
#define KDN_CODEC_TRANSFORM_ANALYSIS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kv/isa.h"
#include "kv/line_vector.h"

namespace kdn::codec {

// The matrix that turns rows into components, for the encoder. Instruction sets
// round differently, so the integer that a component is rounded to may depend
// on the encoding CPU. Decoding does not depend on the CPU. Immutable.
class AnalysisMatrix {
 public:
  // The error of a sum is at most this share of the sum of the magnitudes that
  // it adds, apart from magnitudes below the smallest normal float. AMX tiles
  // have the largest error, because they round both factors to bf16. (The
  // values of most engines are bf16 already.)
  static constexpr double kRounding = 0x1p-7;

  AnalysisMatrix() = default;
  // `values` is [components][dim]. REQUIRES: components is a multiple of 16.
  AnalysisMatrix(int components, int dim, absl::Span<const float> values);

  int dim() const { return dim_; }
  int components() const { return components_; }
  // The largest sum of a component's magnitudes: how far a component can move
  // when no value of a row moves by more than 1.
  double norm() const { return norm_; }

  // out[t][c] = sum over d of value(c, d) * rows[t][d]. `rows` is
  // [tokens][dim()], `out` is [tokens][components()].
  void Apply(const float* rows, int tokens, float* out, Isa isa) const;

 private:
  int components_ = 0;
  int dim_ = 0;
  double norm_ = 0;
  LineVector<float> by_dim_;  // [dim][components]
  // The same in bf16, [components / 16][dim / 2][16][2]. Empty unless dim is a
  // multiple of 32.
  LineVector<uint16_t> tiles_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_ANALYSIS_H_
