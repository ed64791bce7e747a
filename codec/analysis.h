#ifndef KDN_CODEC_ANALYSIS_H_
#define KDN_CODEC_ANALYSIS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "codec/isa.h"
#include "kv/line_vector.h"

namespace kdn::codec {

// The matrix that takes rows to components, for the encoder. Sums are rounded
// as each unit does it: which of two neighbouring integers a component is
// rounded to may differ between CPUs, what a decoder makes of it does not.
// Immutable.
class AnalysisMatrix {
 public:
  AnalysisMatrix() = default;
  // `values` is [components][dim]. REQUIRES: components is a multiple of 16.
  AnalysisMatrix(int components, int dim, absl::Span<const float> values);

  int dim() const { return dim_; }
  int components() const { return components_; }

  // out[t][c] = sum over d of value(c, d) * rows[t][d]. Rows are dim() apart,
  // the output's components().
  void Apply(const float* rows, int tokens, float* out, Isa isa) const;

 private:
  int components_ = 0;
  int dim_ = 0;
  LineVector<float> by_dim_;  // [dim][components]
  // The same as sums of two bf16, [dim / 2][components][2]; there when dim is a
  // multiple of 32.
  LineVector<uint16_t> high_;
  LineVector<uint16_t> low_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_ANALYSIS_H_
