#ifndef KDN_CODEC_CUDA_CALIBRATION_REF_H_
#define KDN_CODEC_CUDA_CALIBRATION_REF_H_

#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// The parts of a calibration that a warp reads, in host or device memory. Every
// type here is trivially copyable and owns no memory.

// A RansTable in so few bytes that a team's shared memory holds two
// SymbolTables, which are made from such tables.
struct alignas(16) CoderTable {
  uint8_t symbols[4096];  // by slot
  uint32_t ranges[256];   // by symbol: start | frequency << 16
};

// The values that each symbol stands for, the first in the lowest byte.
struct alignas(16) ValueTable {
  uint32_t values[256];
};
// How many value tables give values as they were coded. They are the first
// tables, one for each mode from 1 on.
inline constexpr int kPlainTables = 3;

// One band at one level; see BandStep.
struct BandRef {
  uint8_t mode;
  uint8_t tables[2];
  uint8_t shrink;
  // The value table for streams that are decoded at the base level only: it
  // gives the middles of cells.
  uint16_t middles;
};

inline constexpr int kBandBytes = 16;  // one per component
inline constexpr int kLevelSteps = 3;
// What one high part of a component is worth.
inline constexpr int kHighPart = 27;
// The synthesis is kept in blocks of 32 dimensions by 32 components.
inline constexpr int kBlockDims = 32;
inline constexpr int kBlockBands = 2;
inline constexpr int kBlockProducts = 4;  // of 8 columns each

// The transform of a stream.
struct TransformRef {
  int32_t dim;
  int32_t bands;          // of components
  int32_t wide_bands;     // the leading bands that have high parts
  uint64_t bands_at;      // BandRefs: [class][band][step], high parts last
  uint64_t mean_at;       // floats; none if streams have their own
  uint64_t synthesis_at;  // words, see SynthesisWord

  KDN_DEVICE int blocks_of_bands() const {
    return (bands + kBlockBands - 1) / kBlockBands;
  }
  // The bands that a stream may code: of components and of high parts.
  KDN_DEVICE int coded_bands() const { return bands + wide_bands; }
};

struct CalibrationRef {
  const CoderTable* tables;
  const ValueTable* values;
  const TransformRef* transforms;
  const BandRef* bands;
  const float* means;
  const uint32_t* synthesis;
};

// The index of the synthesis words of two products of 8 columns by 32
// components, for the blocks of bands 2 * two and 2 * two + 1. Each lane has
// two words of each product, in the layout of the second factor of
// mma.m16n8k32. The columns of a block's four products are ordered so that a
// lane's results of all four are 8 neighbouring dimensions, which the lane
// stores at once.
inline constexpr int kTwoProductsWords = 4 * kWarpLanes;
KDN_DEVICE uint64_t TwoProductsAt(const TransformRef& transform, int block,
                                  int product, int two) {
  const int twos = (transform.blocks_of_bands() + 1) / 2;
  return transform.synthesis_at +
         ((static_cast<uint64_t>(block) * kBlockProducts + product) * twos +
          two) *
             kTwoProductsWords;
}
// The index of the word with components 4 * quad to 4 * quad + 3 of a
// dimension.
KDN_DEVICE uint64_t SynthesisWord(const TransformRef& transform, int dim,
                                  int quad) {
  const int in_block = dim % kBlockDims;
  const int column = in_block / 8 * 2 + in_block % 2;
  const int lane = column * 4 + quad % 4;
  return TwoProductsAt(transform, dim / kBlockDims, in_block % 8 / 2,
                       quad / 16) +
         static_cast<uint64_t>(lane) * 4 + quad / 4 % 4;
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_CALIBRATION_REF_H_
