#ifndef KDN_CODEC_TRANSFORM_SPARSE_PRODUCT_H_
#define KDN_CODEC_TRANSFORM_SPARSE_PRODUCT_H_

#include <cstdint>

#include "codec/transform/synthesis_kernels.h"
#include "kv/isa.h"
#include "kv/line_vector.h"

namespace kdn::codec::synthesis {

// The product for CPUs with AVX2 or AVX-512 that lack VNNI. Pairs of
// neighbouring components that are both zero cost nothing.
//
// VPMADDUBSW multiplies bytes, twice as many at a time as an instruction for 16
// bits, but its sums have 16 bits. They are exact while the magnitudes of the
// values sum to at most 255, because an entry of the matrix is at most 128. So
// the pairs of a token are cut into chunks that keep this limit, and the sums
// of each chunk are added to sums of 32 bits.
class SparseProduct {
 public:
  // Copies the first `used` components of the matrix. REQUIRES: `isa` is at
  // least AVX2.
  SparseProduct(const Blocks& blocks, int used, Isa isa);

  // The number of sums that Multiply writes for a token. Those past the last
  // dimension are zero.
  int sums() const;
  void Multiply(const Rows& rows) const;

 private:
  int pairs_;
  int dims_;
  Isa isa_;
  // [panel][pair][vector][lane][2], plus 128. The even lanes of a vector have
  // the first half of its dimensions. A panel stays in the L1 cache for many
  // tokens.
  LineVector<uint8_t> panels_;
};

}  // namespace kdn::codec::synthesis

#endif  // KDN_CODEC_TRANSFORM_SPARSE_PRODUCT_H_
