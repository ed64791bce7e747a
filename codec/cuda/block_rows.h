#ifndef KDN_CODEC_CUDA_BLOCK_ROWS_H_
#define KDN_CODEC_CUDA_BLOCK_ROWS_H_

#include "codec/cuda/row_store.h"
#include "codec/cuda/value_tile.h"

namespace kdn::codec::cuda {

// From values to rows on the matrix units, for shapes of whole blocks: 16
// tokens by 64 dimensions at a time, from the tile to the engine's memory
// without passing shared memory again.

// Two blocks of 32 dimensions of one head that are written together: where RoPE
// pairs halves, the pairs' first and second elements.
struct BlockPair {
  int head;
  int low;  // first dimensions in the head
  int high;
  bool turns_together;
};

KDN_DEVICE BlockPair PairAt(const StreamJob& job, int head, int index) {
  const int turning =
      job.pairing == Pairing::kHalves ? job.pairs / kBlockDims : 0;
  if (index < turning) {
    return {head, index * kBlockDims, index * kBlockDims + job.pairs, true};
  }
  return {head, 2 * index * kBlockDims, (2 * index + 1) * kBlockDims, false};
}

// Turns eight neighbouring elements whose neighbours are the pairs.
KDN_DEVICE void TurnNeighbours(const StreamJob& job, const float* cos, int dim,
                               float (&values)[8]) {
  if (dim >= 2 * job.pairs) return;
  const float* sin = cos + job.pairs;
  KDN_UNROLL
  for (int i = 0; i < 8; i += 2) {
    const float c = cos[(dim + i) / 2];
    const float s = sin[(dim + i) / 2];
    const float x = values[i];
    const float y = values[i + 1];
    values[i] = Minus(Times(x, c), Times(y, s));
    values[i + 1] = Plus(Times(y, c), Times(x, s));
  }
}

KDN_DEVICE void LoadEight(const float* from, float (&values)[8]) {
  KDN_UNROLL
  for (int half = 0; half < 2; ++half) {
    const auto bytes = LoadAligned<Bytes16>(from + 4 * half);
    KDN_UNROLL
    for (int i = 0; i < 4; ++i) values[4 * half + i] = FloatOf(bytes.words[i]);
  }
}

// Turns eight first and their eight second elements.
KDN_DEVICE void TurnHalves(const StreamJob& job, const float* cos, int dim,
                           float (&low)[8], float (&high)[8]) {
  float c[8];
  float s[8];
  LoadEight(cos + dim, c);
  LoadEight(cos + job.pairs + dim, s);
  KDN_UNROLL
  for (int i = 0; i < 8; ++i) {
    const float x = low[i];
    const float y = high[i];
    low[i] = Minus(Times(x, c[i]), Times(y, s[i]));
    high[i] = Plus(Times(y, c[i]), Times(x, s[i]));
  }
}

// Turns and stores what one lane has of a token's row: eight dimensions of
// either block.
KDN_DEVICE void StoreBlocks(const BatchRef& batch, const StreamJob& job,
                            const BlockPair& pair, int token, int lane_dim,
                            float (&low)[8], float (&high)[8]) {
  const int low_dim = pair.low + lane_dim;
  const int high_dim = pair.high + lane_dim;
  if (job.pairs > 0) {
    const float* cos =
        batch.rope + job.rope_at + static_cast<int64_t>(token) * 2 * job.pairs;
    if (pair.turns_together) {
      TurnHalves(job, cos, low_dim, low, high);
    } else if (job.pairing == Pairing::kNeighbours) {
      TurnNeighbours(job, cos, low_dim, low);
      TurnNeighbours(job, cos, high_dim, high);
    }
  }
  uint8_t* row = RowAt(batch, job.places, token) +
                 (pair.head - job.head_begin) * job.places.head_stride;
  StoreEight(job.type, low, row, low_dim);
  StoreEight(job.type, high, row, high_dim);
}

// A lane's eight dimensions of either block.
struct LaneMeans {
  float low[8];
  float high[8];
};

// Both blocks of a pair, all tokens. A pair's part of the synthesis stays in
// registers meanwhile: kBlocksMax blocks of bands at most.
template <int kBlocksMax, typename Warp>
class BlockPairWriter {
 public:
  KDN_DEVICE BlockPairWriter(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, const BlockPair& pair)
      : warp_(warp), blocks_(job.tile_bands() / kBlockBands) {
    const TransformRef transform = batch.calibration.transforms[job.transform];
    const int dims_before = pair.head * job.head_dim;
    KDN_UNROLL
    for (int p = 0; p < 2 * kBlockProducts; ++p) {
      const int dim = dims_before + (p < kBlockProducts ? pair.low : pair.high);
      KDN_UNROLL
      for (int k = 0; k < kBlocksMax; ++k) {
        if (k >= blocks_) continue;
        const uint64_t at =
            ProductAt(transform, dim / kBlockDims, p % kBlockProducts, k);
        warp.Each([&](int lane) {
          const uint32_t* words = batch.calibration.synthesis + at + 2 * lane;
          synthesis_[p][k][0][lane] = words[0];
          synthesis_[p][k][1][lane] = words[1];
        });
      }
    }
    warp.Each([&](int lane) {
      const int dim = dims_before + lane % 4 * 8;
      KDN_UNROLL
      for (int i = 0; i < 8; ++i) {
        means_[lane].low[i] = MeanOf(batch, job, dim + pair.low + i);
        means_[lane].high[i] = MeanOf(batch, job, dim + pair.high + i);
      }
    });
  }

  KDN_DEVICE void Write(const BatchRef& batch, const StreamJob& job,
                        const BlockPair& pair, const ValueTile& tile) const {
    for (int begin = 0; begin < job.tokens; begin += kTokens) {
      Sums sums[2 * kBlockProducts][4];
      Multiply(tile, begin, sums);
      warp_.Each([&](int lane) {
        KDN_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int token = begin + lane / 4 + half * kTokens / 2;
          if (token >= job.tokens) continue;
          float low[8];
          float high[8];
          KDN_UNROLL
          for (int i = 0; i < 8; ++i) {
            const int at = 2 * half + i % 2;
            low[i] = Plus(Times(FloatOfSum(sums[i / 2][at][lane]), job.scale),
                          means_[lane].low[i]);
            high[i] =
                Plus(Times(FloatOfSum(sums[4 + i / 2][at][lane]), job.scale),
                     means_[lane].high[i]);
          }
          StoreBlocks(batch, job, pair, token, lane % 4 * 8, low, high);
        }
      });
    }
  }

 private:
  using Words = typename Warp::template PerLane<uint32_t>;
  using Sums = typename Warp::template PerLane<int32_t>;
  static constexpr int kTokens = 16;

  KDN_DEVICE void Multiply(const ValueTile& tile, int begin,
                           Sums (&sums)[2 * kBlockProducts][4]) const {
    KDN_UNROLL
    for (int p = 0; p < 2 * kBlockProducts; ++p) {
      KDN_UNROLL
      for (int i = 0; i < 4; ++i) {
        warp_.Each([&](int lane) { sums[p][i][lane] = 0; });
      }
    }
    KDN_UNROLL
    for (int k = 0; k < kBlocksMax; ++k) {
      if (k >= blocks_) continue;
      Words values[4];
      warp_.Each([&](int lane) {
        KDN_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int token = begin + lane / 4 + i % 2 * (kTokens / 2);
          values[i][lane] = LoadAligned<uint32_t>(
              tile.At(token, kBlockBands * k + i / 2) + lane % 4 * 4);
        }
      });
      KDN_UNROLL
      for (int p = 0; p < 2 * kBlockProducts; ++p) {
        warp_.AddProduct(values, synthesis_[p][k], sums[p]);
      }
    }
  }

  Warp warp_;
  int blocks_;
  Words synthesis_[2 * kBlockProducts][kBlocksMax][2];
  typename Warp::template PerLane<LaneMeans> means_;
};

template <int kBlocksMax, typename Warp>
KDN_DEVICE void WriteInBlocks(const Warp& warp, const BatchRef& batch,
                              const StreamJob& job, const ValueTile& tile) {
  const int pairs = job.head_dim / (2 * kBlockDims);
  for (int head = job.head_begin; head < job.head_end; ++head) {
    for (int index = 0; index < pairs; ++index) {
      const BlockPair pair = PairAt(job, head, index);
      const BlockPairWriter<kBlocksMax, Warp> writer(warp, batch, job, pair);
      writer.Write(batch, job, pair, tile);
    }
  }
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_BLOCK_ROWS_H_
