#ifndef KDN_CODEC_CUDA_CALIBRATION_REF_H_
#define KDN_CODEC_CUDA_CALIBRATION_REF_H_

#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// What a warp reads of a calibration, in host or device memory. Every type here
// is trivially copyable and says where things are, never owns them.

// A RansTable, taken apart so that a warp's share of shared memory holds two.
struct alignas(16) CoderTable {
  uint8_t symbols[4096];  // of each slot
  uint32_t ranges[256];   // of each symbol: start | frequency << 16
};

// The values that each symbol stands for, the first in the lowest byte.
struct alignas(16) ValueTable {
  uint32_t values[256];
};
// The first of all value tables give values as they were coded, one for every
// mode from 1 on.
inline constexpr int kPlainTables = 3;

// One band at one level; see BandStep.
struct BandRef {
  uint8_t mode;
  uint8_t tables[2];
  uint8_t shrink;
  // The value table to decode with where the base is all: its values are in the
  // middles of their cells already.
  uint16_t middles;
};

inline constexpr int kBandBytes = 16;  // a value a byte
inline constexpr int kLevelSteps = 3;
// The synthesis is kept in blocks of 32 dimensions by 32 components.
inline constexpr int kBlockDims = 32;
inline constexpr int kBlockBands = 2;
inline constexpr int kBlockProducts = 4;  // of 8 columns each

// The transform of a stream.
struct TransformRef {
  int32_t dim;
  int32_t bands;
  uint64_t bands_at;      // BandRefs: [band][step]
  uint64_t mean_at;       // floats; nothing there where chunks bring their own
  uint64_t synthesis_at;  // words, see SynthesisWord

  KDN_DEVICE int blocks_of_bands() const {
    return (bands + kBlockBands - 1) / kBlockBands;
  }
};

struct CalibrationRef {
  const CoderTable* tables;
  const ValueTable* values;
  const TransformRef* transforms;
  const BandRef* bands;
  const float* means;
  const uint32_t* synthesis;
};

// Where the synthesis words of two products of 8 columns by 32 components lie,
// for the blocks of bands 2 * `two` and the one behind it: for each lane two
// words of either, as mma.m16n8k32 wants its second factor. The columns of a
// block's four products are spread so that a lane's results of all four are 8
// neighbouring dimensions, which it stores at once.
inline constexpr int kTwoProductsWords = 4 * kWarpLanes;
KDN_DEVICE uint64_t TwoProductsAt(const TransformRef& transform, int block,
                                  int product, int two) {
  const int twos = (transform.blocks_of_bands() + 1) / 2;
  return transform.synthesis_at +
         ((static_cast<uint64_t>(block) * kBlockProducts + product) * twos +
          two) *
             kTwoProductsWords;
}
// Where the word of four components of a dimension lies.
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
