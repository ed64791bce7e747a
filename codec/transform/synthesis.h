#ifndef KDN_CODEC_TRANSFORM_SYNTHESIS_H_
#define KDN_CODEC_TRANSFORM_SYNTHESIS_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kv/isa.h"
#include "kv/line_vector.h"

namespace kdn::codec {

// The integer matrix that turns components back into dimensions, laid out for
// the vector units. Integer sums do not depend on their order, so every kernel
// gives the same bits. Immutable.
class SynthesisMatrix {
 public:
  SynthesisMatrix() = default;
  // `values` is [dim][components]. REQUIRES: components is a multiple of 16;
  // both are at most kJointDimMax.
  SynthesisMatrix(int dim, int components, absl::Span<const int8_t> values);

  int dim() const { return dim_; }
  int components() const { return components_; }
  // The number of sums per token: dim() rounded up to a multiple of 16. Sums
  // from dim() on are zero.
  int padded_dim() const { return (dim_ + 15) / 16 * 16; }
  int8_t At(int dimension, int component) const;
  // The largest sum of a dimension's magnitudes: how far a sum can move when no
  // value moves by more than 1.
  int32_t norm() const { return norm_; }

  // Receives a token's padded_dim() sums, which begin at a cache line. The sums
  // are valid until the function returns.
  using TakeSums = absl::FunctionRef<void(int token, const int32_t* sums)>;

  // The number of tokens that are multiplied at a time.
  static constexpr int kTileTokens = 16;

  // The values of tokens. Each token has a row of `stride` bytes: its
  // components, and behind them the high parts of the leading components. From
  // `used` on, components are zero; from `used_high` on, high parts are.
  struct Values {
    const int8_t* low = nullptr;
    int stride = 0;
    int used = 0;
    int used_high = 0;
  };
  // Calls `take` for each token, in ascending order, with
  //   sums[d] = sum over components c of
  //             At(d, c) * (low[token][c] + kHighRadix * high[token][c]).
  // With tiles, `take` runs while the CPU multiplies the next tokens. REQUIRES:
  // there is memory for `tokens` rows, rounded up to a multiple of kTileTokens;
  // the stride is components() and a multiple of 16 high parts, at least
  // used_high; `used` and `used_high` are multiples of 16; `take` does not call
  // Multiply, because tiles hold sums while it runs.
  void Multiply(const Values& values, int tokens, Isa isa, TakeSums take) const;

 private:
  // The place in blocks_.
  size_t PlaceOf(int dimension, int component) const;
  // Multiply with a product that needs no tiles: tile by tile of tokens.
  template <typename Product>
  void MultiplyBy(const Product& product, const Values& values, int tokens,
                  TakeSums take) const;

  int dim_ = 0;
  int components_ = 0;
  int32_t norm_ = 0;
  // The entries, as synthesis::Blocks.
  LineVector<int8_t> blocks_;
  // For VNNI, which has an unsigned factor: 128 times the sum of a dimension's
  // first 16 * i components, as [i][padded_dim()] for i from 0 to components /
  // 16.
  LineVector<int32_t> offsets_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_SYNTHESIS_H_
