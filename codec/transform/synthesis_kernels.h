#ifndef KDN_CODEC_TRANSFORM_SYNTHESIS_KERNELS_H_
#define KDN_CODEC_TRANSFORM_SYNTHESIS_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "codec/format/stream_layout.h"

// The products of codec/transform/synthesis.h that need no tiles; private to
// it. All give the same bits.
namespace kdn::codec::synthesis {

inline constexpr int kGroup = 4;        // components side by side
inline constexpr int kBlock = 16;       // dimensions side by side
inline constexpr int kTileTokens = 16;  // the most tokens of a product
inline constexpr int kDimsMax = kJointDimMax;

// The matrix in blocks of 16 dimensions: [dims / 16][components / 4][16][4]. A
// kernel reads the components of a few blocks one after the other, for many
// tokens. Each block is contiguous, so that these blocks do not compete for the
// same sets of a cache.
struct Blocks {
  const int8_t* values;
  int components;
  int dims;  // a multiple of 16

  // Four components of the 16 dimensions from `dimension` on.
  const int8_t* At(int dimension, int component) const {
    return values + static_cast<size_t>(dimension) * components +
           static_cast<size_t>(component) * kBlock;
  }
};
// The bytes from four components of a block to the next four.
inline constexpr int kQuadBytes = kBlock * kGroup;

// Rows of components, and where their sums go.
struct Rows {
  const int8_t* values;
  int stride;
  int used;  // components, a multiple of 16; the others are zero
  int tokens;
  int32_t* sums = nullptr;
  int sums_stride = 0;

  const int8_t* At(int token) const {
    return values + static_cast<size_t>(token) * stride;
  }
  int32_t* SumsOf(int token) const {
    return sums + static_cast<size_t>(token) * sums_stride;
  }
};

// A product of tokens with the matrix. REQUIRES: there are at most kTileTokens
// tokens; a token has room for sums() sums.
class ScalarProduct {
 public:
  explicit ScalarProduct(const Blocks& blocks) : blocks_(blocks) {}
  int sums() const { return blocks_.dims; }
  void Multiply(const Rows& rows) const;

 private:
  const Blocks blocks_;
};

// The same for CPUs with AVX-512 VNNI. One factor of VPDPBUSD is unsigned. So
// 128 is added to every value, and each sum begins with minus the amount that
// this adds.
class VnniProduct {
 public:
  // `offsets` is [components / 16 + 1][dims]: 128 times the sum of a
  // dimension's first 16 * i components.
  VnniProduct(const Blocks& blocks, const int32_t* offsets)
      : blocks_(blocks), offsets_(offsets) {}
  int sums() const { return blocks_.dims; }
  void Multiply(const Rows& rows) const;

 private:
  const Blocks blocks_;
  const int32_t* offsets_;
};

}  // namespace kdn::codec::synthesis

#endif  // KDN_CODEC_TRANSFORM_SYNTHESIS_KERNELS_H_
