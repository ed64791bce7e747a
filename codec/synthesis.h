#ifndef KDN_CODEC_SYNTHESIS_H_
#define KDN_CODEC_SYNTHESIS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "codec/isa.h"

namespace kdn::codec {

// The integer matrix that turns components into dimensions, laid out for the
// vector units. Integer sums do not depend on their order, so every kernel
// gives the same bits. Immutable.
class SynthesisMatrix {
 public:
  SynthesisMatrix() = default;
  // `values` is [dim][components]. REQUIRES: components is a multiple of 16, at
  // most 256.
  SynthesisMatrix(int dim, int components, absl::Span<const int8_t> values);

  int dim() const { return dim_; }
  int components() const { return components_; }
  // Columns of a row of Multiply's output: dim() rounded up to a multiple of
  // 16; what lies behind dim() is zero.
  int padded_dim() const { return (dim_ + 15) / 16 * 16; }
  int8_t At(int dimension, int component) const;
  // The largest sum of magnitudes of a dimension: how far an output can move
  // when no value moves by more than 1.
  int32_t norm() const { return norm_; }

  // out[t][d] = sum over components c < `used` of At(d, c) * rows[t][c].
  // `rows` are components() apart, the output's padded_dim(). Multiples of 16
  // tokens go fastest. REQUIRES: `used` is a multiple of 16, at most
  // components(); values behind it are zero.
  void Multiply(const int8_t* rows, int tokens, int used, int32_t* out,
                Isa isa) const;

 private:
  int dim_ = 0;
  int components_ = 0;
  int32_t norm_ = 0;
  // Four components of a dimension side by side: [components / 4][dims][4].
  std::vector<int8_t> quads_;
  // For a unit whose left factor is unsigned: 128 times the sum of a
  // dimension's first components, up to each multiple of 16:
  // [components / 16][dims].
  std::vector<int32_t> offsets_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_SYNTHESIS_H_
