#ifndef KDN_CODEC_TRANSFORM_SYNTHESIS_H_
#define KDN_CODEC_TRANSFORM_SYNTHESIS_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "codec/kernels/isa.h"
#include "kv/line_vector.h"

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
  // How many sums a token has: dim() rounded up to a multiple of 16; what lies
  // behind dim() is zero.
  int padded_dim() const { return (dim_ + 15) / 16 * 16; }
  int8_t At(int dimension, int component) const;
  // The largest sum of magnitudes of a dimension: how far an output can move
  // when no value moves by more than 1.
  int32_t norm() const { return norm_; }

  // Where a token's sums go: padded_dim() of them, from a cache line on, which
  // are gone when it returns.
  using TakeSums = absl::FunctionRef<void(int token, const int32_t* sums)>;

  // Tokens are multiplied so many at a time.
  static constexpr int kTileTokens = 16;

  // Gives `take`, for each token in ascending order,
  //   sums[d] = sum over components c < `used` of At(d, c) * rows[token][c].
  // `rows` are components() apart. What is taken is worked on while the next
  // tokens are multiplied, as far as the CPU does such things at once.
  // REQUIRES: there are rows for a multiple of kTileTokens; `used` is a
  // multiple of 16, at most components(); values behind it are zero;
  // `take` multiplies nothing itself, as tiles hold sums when it is called.
  void Multiply(const int8_t* rows, int tokens, int used, Isa isa,
                TakeSums take) const;

 private:
  int dim_ = 0;
  int components_ = 0;
  int32_t norm_ = 0;
  // Four components of a dimension side by side: [components / 4][dims][4].
  LineVector<int8_t> quads_;
  // For a unit whose left factor is unsigned: 128 times the sum of a
  // dimension's first components, up to each multiple of 16:
  // [components / 16][dims].
  LineVector<int32_t> offsets_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_SYNTHESIS_H_
