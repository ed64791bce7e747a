#ifndef KDN_CODEC_CUDA_BLOCK_ROWS_H_
#define KDN_CODEC_CUDA_BLOCK_ROWS_H_

#include "codec/cuda/row_store.h"
#include "codec/cuda/value_tile.h"

namespace kdn::codec::cuda {

// Turns values into rows on the matrix units, for shapes of whole blocks. Takes
// 16 tokens by 64 dimensions at a time, and writes them from registers to the
// engine's memory.

// Two blocks of 32 dimensions of one head that are written together. Where RoPE
// pairs halves, `low` has the first and `high` the second elements of the
// pairs.
struct BlockPair {
  int head;
  int low;  // the blocks' first dimensions in the head
  int high;
  bool turns_together;
};

// The number of block pairs of all wanted heads.
KDN_DEVICE int PairsOf(const StreamJob& job) {
  return (job.head_end - job.head_begin) * (job.head_dim / (2 * kBlockDims));
}
// `pairs` is the number of pairs of elements that turn.
KDN_DEVICE BlockPair PairAt(const StreamJob& job, int pairs, int pair) {
  const int in_head = job.head_dim / (2 * kBlockDims);
  const int head = job.head_begin + pair / in_head;
  const int index = pair % in_head;
  const int turning = job.pairing == Pairing::kHalves ? pairs / kBlockDims : 0;
  if (index < turning) {
    return {head, index * kBlockDims, index * kBlockDims + pairs, true};
  }
  return {head, 2 * index * kBlockDims, (2 * index + 1) * kBlockDims, false};
}

// Rotates eight neighbouring elements from dimension `dim` on, where neighbours
// are pairs. `cos` has the token's cosines, then its sines.
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

// Room in shared memory for the cosines and sines of 16 tokens, for one pair of
// blocks that turn together. Cosines and sines take more bytes than the rows
// that they rotate, so a team reads them once for the streams of all its warps.
struct alignas(16) StagedRope {
  // Cosines, sines, and padding so that lanes read from different banks.
  static constexpr int kRow = 2 * kBlockDims + 4;

  float floats[kTileTokens * kRow];
};

// Copies the cosines and sines of the 16 tokens token_of(0) to token_of(15),
// or zeros for tokens that do not exist. One warp does this.
template <typename Warp, typename TokenOf>
KDN_DEVICE void StageRopeAsync(const Warp& warp, const BatchRef& batch,
                               const StreamJob& job, const BlockPair& pair,
                               const TokenOf& token_of, StagedRope* rope) {
  constexpr int kPieces = 2 * kBlockDims / 4;    // of 16 bytes, per token
  constexpr int kTokens = kWarpLanes / kPieces;  // at a time
  warp.Each([&](int lane) {
    const int piece = lane % kPieces;
    const int of_sines = piece < kPieces / 2 ? 0 : job.pairs - kBlockDims;
    const float* from =
        batch.rope + job.rope_at + pair.low + 4 * piece + of_sines;
    float* to = rope->floats + lane / kPieces * StagedRope::kRow + 4 * piece;
    KDN_UNROLL
    for (int i = 0; i < kTileTokens; i += kTokens) {
      const int token = token_of(lane / kPieces + i);
      const bool wanted = token < job.tokens;
      Warp::template CopyAsync<16>(from + (wanted ? token * 2 * job.pairs : 0),
                                   wanted, to + i * StagedRope::kRow);
    }
  });
}

// Rotates eight pairs: `low` has their first elements, `high` their second
// elements.
KDN_DEVICE void TurnHalves(const float* cos, float (&low)[8],
                           float (&high)[8]) {
  float c[8];
  float s[8];
  LoadEight(cos, c);
  LoadEight(cos + kBlockDims, s);
  KDN_UNROLL
  for (int i = 0; i < 8; ++i) {
    const float x = low[i];
    const float y = high[i];
    low[i] = Minus(Times(x, c[i]), Times(y, s[i]));
    high[i] = Plus(Times(y, c[i]), Times(x, s[i]));
  }
}

// The shared memory with which a team writes rows. For a pair of blocks it has
// the synthesis and the means of each warp's stream, for at most kBlocksMaxOf
// blocks of bands. It also has the cosines and sines of one round: 16 tokens
// per warp.
template <int kBlocksMaxOf>
struct alignas(16) RowsRoom {
  static constexpr int kBlocksMax = kBlocksMaxOf;
  static constexpr int kProducts = 2 * kBlockProducts;
  static_assert(kBlocksMax % 2 == 0);

  uint32_t synthesis[kTeamWarps][kProducts][kBlocksMax / 2][kTwoProductsWords];
  StagedRope ropes[kTeamWarps];
  float means[kTeamWarps][2 * kBlockDims];
};
static_assert(sizeof(StagedRope) >= kDimMax * sizeof(float));

// Writes both blocks of a pair for all tokens, 16 at a time. All warps of a
// team, each with a stream of its own, run this together.
template <typename Room, ElementType kType, typename Warp>
class BlockPairWriter {
 public:
  KDN_DEVICE BlockPairWriter(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, const BlockPair& pair,
                             const ValueTile& tile, Room* room)
      : warp_(warp),
        batch_(batch),
        job_(job),
        pair_(pair),
        tile_(tile),
        blocks_(job.high_bands_at() / kBlockBands),
        room_(room) {
    const TransformRef transform = batch.calibration.transforms[job.transform];
    const int low = pair.head * job.head_dim + pair.low;
    const int high = pair.head * job.head_dim + pair.high;
    const int rank = warp.rank();
    warp.Sync();  // other lanes may still read the last pair
    for (int p = 0; p < kProducts; ++p) {
      const int block = (p < kBlockProducts ? low : high) / kBlockDims;
      for (int two = 0; 2 * two < blocks_; ++two) {
        const uint32_t* from =
            batch.calibration.synthesis +
            TwoProductsAt(transform, block, p % kBlockProducts, two);
        warp.Each([&](int lane) {
          Warp::template CopyAsync<16>(
              from + 4 * lane, true, room->synthesis[rank][p][two] + 4 * lane);
        });
      }
    }
    warp.EndGroup();
    warp.Each([&](int lane) {
      room->means[rank][lane] = MeanOf(batch, job, low + lane);
      room->means[rank][lane + kBlockDims] = MeanOf(batch, job, high + lane);
    });
    warp.template AwaitAllBut<0>();
  }

  KDN_DEVICE void Write() const {
    Words values[kBlocksMax][4];
    Load(0, &values);
    for (int begin = 0; begin < job_.tokens; begin += kRound) {
      if (pair_.turns_together) {
        warp_.SyncTeam();  // other warps may still read the last round
        const int first = begin + warp_.rank() * kTokens;
        StageRopeAsync(
            warp_, batch_, job_, pair_, [first](int i) { return first + i; },
            room_->ropes + warp_.rank());
        warp_.EndGroup();
        warp_.template AwaitAllBut<0>();
        warp_.SyncTeam();
      }
      if (!warp_.is_active()) continue;
      KDN_DO_NOT_UNROLL
      for (int i = 0; i < Warp::kTeam; ++i) {
        const int first = begin + i * kTokens;
        if (first >= job_.tokens) break;
        Sums sums[kProducts][4];
        Multiply(values, &sums);
        // The next values are loaded while rows are written.
        if (first + kTokens < job_.tokens) Load(first + kTokens, &values);
        WriteRows(first, sums, room_->ropes[i].floats);
      }
    }
  }

 private:
  using Words = typename Warp::template PerLane<uint32_t>;
  using Sums = typename Warp::template PerLane<int32_t>;
  static constexpr int kBlocksMax = Room::kBlocksMax;
  static constexpr int kProducts = Room::kProducts;
  static constexpr int kTokens = kTileTokens;
  static constexpr int kRound = kTokens * Warp::kTeam;

  // Loads the first factors of the products of 16 tokens.
  KDN_DEVICE void Load(int begin, Words (*values)[kBlocksMax][4]) const {
    warp_.Each([&](int lane) {
      const int8_t* first = tile_.At(begin + lane / 4, 0) + lane % 4 * 4;
      KDN_UNROLL
      for (int k = 0; k < kBlocksMax; ++k) {
        KDN_UNROLL
        for (int i = 0; i < 4; ++i) {
          if (k >= blocks_) continue;
          (*values)[k][i][lane] = LoadAligned<uint32_t>(
              first + (kBlockBands * k + i / 2) * ValueTile::kBandStride +
              i % 2 * (kTokens / 2) * kBandBytes);
        }
      }
    });
  }

  KDN_DEVICE void Multiply(const Words (&values)[kBlocksMax][4],
                           Sums (*sums)[kProducts][4]) const {
    Sums none[4];
    KDN_UNROLL
    for (int i = 0; i < 4; ++i) {
      warp_.Each([&](int lane) { none[i][lane] = kNoSum; });
    }
    KDN_UNROLL
    for (int k = 0; k < kBlocksMax; k += 2) {
      if (k > 0 && k >= blocks_) continue;  // there is at least one
      KDN_UNROLL
      for (int p = 0; p < kProducts; ++p) {
        Words words[4];
        warp_.Each([&](int lane) {
          const auto four = LoadAligned<Bytes16>(
              room_->synthesis[warp_.rank()][p][k / 2] + 4 * lane);
          KDN_UNROLL
          for (int i = 0; i < 4; ++i) words[i][lane] = four.words[i];
        });
        warp_.AddProduct(values[k], words[0], words[1],
                         k == 0 ? none : (*sums)[p], &(*sums)[p]);
        if (k + 1 >= blocks_) continue;
        warp_.AddProduct(values[k + 1], words[2], words[3], (*sums)[p],
                         &(*sums)[p]);
      }
    }
  }

  KDN_DEVICE void WriteRows(int begin, const Sums (&sums)[kProducts][4],
                            const float* rope) const {
    const float* means = room_->means[warp_.rank()];
    warp_.Each([&](int lane) {
      const int dim = lane % 4 * 8;
      KDN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int token = lane / 4 + half * kTokens / 2;
        if (begin + token >= job_.tokens) continue;
        float low[8];
        float high[8];
        LoadEight(means + dim, low);
        LoadEight(means + kBlockDims + dim, high);
        KDN_UNROLL
        for (int i = 0; i < 8; ++i) {
          const int at = 2 * half + i % 2;
          low[i] = Plus(Times(FloatOfSum(sums[i / 2][at][lane]), job_.scale),
                        low[i]);
          high[i] =
              Plus(Times(FloatOfSum(sums[4 + i / 2][at][lane]), job_.scale),
                   high[i]);
        }
        if (pair_.turns_together) {
          TurnHalves(rope + token * StagedRope::kRow + dim, low, high);
        } else if (job_.pairs > 0 && job_.pairing == Pairing::kNeighbours) {
          const float* cos =
              batch_.rope + job_.rope_at +
              static_cast<int64_t>(begin + token) * 2 * job_.pairs;
          TurnNeighbours(job_, cos, pair_.low + dim, low);
          TurnNeighbours(job_, cos, pair_.high + dim, high);
        }
        uint8_t* row = RowAt(batch_, job_.places, begin + token) +
                       (pair_.head - job_.head_begin) * job_.places.head_stride;
        StoreEight(kType, low, row, pair_.low + dim);
        StoreEight(kType, high, row, pair_.high + dim);
      }
    });
  }

  const Warp& warp_;
  const BatchRef& batch_;
  const StreamJob& job_;
  const BlockPair& pair_;
  const ValueTile& tile_;
  int blocks_;
  Room* room_;
};

template <ElementType kType, typename Room, typename Warp>
KDN_DEVICE void WriteBlocksOf(const Warp& warp, const BatchRef& batch,
                              const StreamJob& job, const ValueTile& tile,
                              Room* room) {
  for (int i = 0; i < PairsOf(job); ++i) {
    const BlockPair pair = PairAt(job, job.pairs, i);
    BlockPairWriter<Room, kType, Warp>(warp, batch, job, pair, tile, room)
        .Write();
  }
}

template <typename Room, typename Warp>
KDN_DEVICE void WriteInBlocks(const Warp& warp, const BatchRef& batch,
                              const StreamJob& job, const ValueTile& tile,
                              Room* room) {
  switch (job.type) {
    case ElementType::kBf16:
      return WriteBlocksOf<ElementType::kBf16>(warp, batch, job, tile, room);
    case ElementType::kFp16:
      return WriteBlocksOf<ElementType::kFp16>(warp, batch, job, tile, room);
    case ElementType::kFp32:
      return WriteBlocksOf<ElementType::kFp32>(warp, batch, job, tile, room);
  }
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_BLOCK_ROWS_H_
