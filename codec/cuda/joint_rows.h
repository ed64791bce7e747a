#ifndef KDN_CODEC_CUDA_JOINT_ROWS_H_
#define KDN_CODEC_CUDA_JOINT_ROWS_H_

#include "codec/cuda/block_rows.h"
#include "codec/cuda/synthesis_rows.h"

namespace kdn::codec::cuda {

// Turns the values of a joint stream into rows of K and of V. Such a stream has
// up to 512 dimensions and components, so the synthesis of a pair of blocks
// takes 32 KiB of shared memory. All warps of a team therefore work on one
// stream: they share the synthesis, and each writes every kTeam-th 16 rows.

// The shared memory of a team.
struct alignas(16) JointRoom {
  static constexpr int kProducts = 2 * kBlockProducts;
  static constexpr int kTwosMax =
      kJointDimsMax / (2 * kBlockBands * kBandBytes);

  uint32_t synthesis[kProducts][kTwosMax][kTwoProductsWords];
  // Also room for a row of each warp.
  StagedRope ropes[kTeamWarps];
  float means[2 * kBlockDims];
};
static_assert(sizeof(StagedRope) >= kJointDimsMax * sizeof(float));

KDN_DEVICE ValueRow ValueRowAt(const BatchRef& batch, const StreamJob& job,
                               int row) {
  return batch.value_rows[job.value_rows_at + static_cast<uint64_t>(row)];
}

// The scale of a head in a row whose class has this exponent. The factor is a
// power of two, so the product is exact.
KDN_DEVICE float ScaleOf(const BatchRef& batch, const StreamJob& job, int head,
                         int exponent) {
  const float factor = FloatOf(static_cast<uint32_t>(127 + exponent) << 23);
  return Times(batch.scales[job.scales_at + static_cast<uint64_t>(head)],
               factor);
}

// Takes any shape: one row at a time, one dimension per lane.
template <typename Warp>
KDN_DEVICE void WriteJointRowByRow(const Warp& warp, const BatchRef& batch,
                                   const StreamJob& job, const ValueTile& tile,
                                   float* row) {
  const TransformRef& transform = batch.calibration.transforms[job.transform];
  for (int i = warp.rank(); i < job.rows; i += Warp::kTeam) {
    const ValueRow value_row = ValueRowAt(batch, job, i);
    if (value_row.token >= job.tokens) continue;
    warp.Each([&](int lane) {
      for (int d = lane; d < transform.dim; d += kWarpLanes) {
        const int32_t high = AddBands(batch, transform, tile, i,
                                      job.high_bands_at(), job.used_high, d, 0);
        const int32_t sum = AddBands(batch, transform, tile, i, 0,
                                     job.used_bands, d, kHighPart * high);
        const float scale =
            ScaleOf(batch, job, d / job.head_dim, value_row.exponent);
        row[d] = Plus(Times(FloatOfInt(sum), scale), MeanOf(batch, job, d));
      }
    });
    warp.Sync();
    StoreRow<true>(warp, batch, job, value_row.token, row);
    warp.Sync();
  }
}

// Writes both blocks of a pair for all rows of values, 16 at a time.
template <ElementType kType, typename Warp>
class JointPairWriter {
 public:
  // All warps of the team make a writer together. `is_v`: the pair is of V.
  KDN_DEVICE JointPairWriter(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, const BlockPair& pair,
                             bool is_v, const ValueTile& tile, JointRoom* room)
      : warp_(warp),
        batch_(batch),
        job_(job),
        pair_(pair),
        is_v_(is_v),
        head_(pair.head + (is_v ? job.joint_heads : 0)),
        tile_(tile),
        room_(room) {
    const TransformRef transform = batch.calibration.transforms[job.transform];
    const int low = head_ * job.head_dim + pair.low;
    const int high = head_ * job.head_dim + pair.high;
    warp.SyncTeam();  // other warps may still read the last pair
    for (int p = warp.rank(); p < kProducts; p += Warp::kTeam) {
      const int block = (p < kBlockProducts ? low : high) / kBlockDims;
      for (int two = 0; two < TwosOf(job.synthesis_bands()); ++two) {
        const uint32_t* from =
            batch.calibration.synthesis +
            TwoProductsAt(transform, block, p % kBlockProducts, two);
        warp.Each([&](int lane) {
          Warp::template CopyAsync<16>(from + 4 * lane, true,
                                       room->synthesis[p][two] + 4 * lane);
        });
      }
    }
    warp.EndGroup();
    warp.template ForTeam<2 * kBlockDims>([&](int i) {
      room->means[i] =
          MeanOf(batch, job, i < kBlockDims ? low + i : high + i - kBlockDims);
    });
    warp.template AwaitAllBut<0>();
    warp.SyncTeam();
  }

  KDN_DEVICE void Write() const {
    for (int begin = warp_.rank() * kTileTokens; begin < job_.rows;
         begin += Warp::kTeam * kTileTokens) {
      if (pair_.turns_together) {
        warp_.Sync();  // other lanes may still read the last rows' cosines
        StageRopeAsync(
            warp_, batch_, job_, pair_,
            [&](int i) {
              return static_cast<int>(
                  ValueRowAt(batch_, job_, begin + i).token);
            },
            room_->ropes + warp_.rank());
        warp_.EndGroup();
      }
      Sums sums[kProducts][4];
      Multiply(begin, &sums);
      warp_.template AwaitAllBut<0>();
      WriteRows(begin, sums, room_->ropes[warp_.rank()].floats);
    }
  }

 private:
  using Words = typename Warp::template PerLane<uint32_t>;
  using Sums = typename Warp::template PerLane<int32_t>;
  static constexpr int kProducts = JointRoom::kProducts;
  // Two blocks of bands, which the synthesis keeps side by side.
  static constexpr int kTwoBands = 2 * kBlockBands;
  KDN_DEVICE static int TwosOf(int bands) {
    return (bands + kTwoBands - 1) / kTwoBands;
  }

  KDN_DEVICE void Multiply(int begin, Sums (*sums)[kProducts][4]) const {
    KDN_UNROLL
    for (int p = 0; p < kProducts; ++p) {
      KDN_UNROLL
      for (int i = 0; i < 4; ++i) {
        warp_.Each([&](int lane) { (*sums)[p][i][lane] = 0; });
      }
    }
    if (job_.used_high > 0) {
      AddBandProducts(begin, job_.high_bands_at(), job_.used_high, sums);
      KDN_UNROLL
      for (int p = 0; p < kProducts; ++p) {
        KDN_UNROLL
        for (int i = 0; i < 4; ++i) {
          warp_.Each([&](int lane) { (*sums)[p][i][lane] *= kHighPart; });
        }
      }
    }
    AddBandProducts(begin, 0, job_.used_bands, sums);
  }

  // Adds the products of the first bands of the synthesis with as many bands of
  // 16 rows, from `band` on.
  KDN_DEVICE void AddBandProducts(int begin, int band, int bands,
                                  Sums (*sums)[kProducts][4]) const {
    const int blocks = StreamJob::WholeBlocks(bands) / kBlockBands;
    Words next[2][4];
    Load(begin, band, blocks, &next);
    KDN_DO_NOT_UNROLL
    for (int two = 0; 2 * two < blocks; ++two) {
      Words values[2][4];
      KDN_UNROLL
      for (int k = 0; k < 2; ++k) {
        KDN_UNROLL
        for (int i = 0; i < 4; ++i) values[k][i] = next[k][i];
      }
      // The next values are loaded while these are multiplied.
      Load(begin, band + kTwoBands * (two + 1), blocks - 2 * (two + 1), &next);
      KDN_UNROLL
      for (int p = 0; p < kProducts; ++p) {
        Words words[4];
        warp_.Each([&](int lane) {
          const auto four =
              LoadAligned<Bytes16>(room_->synthesis[p][two] + 4 * lane);
          KDN_UNROLL
          for (int i = 0; i < 4; ++i) words[i][lane] = four.words[i];
        });
        warp_.AddProduct(values[0], words[0], words[1], (*sums)[p],
                         &(*sums)[p]);
        warp_.AddProduct(values[1], words[2], words[3], (*sums)[p],
                         &(*sums)[p]);
      }
    }
  }

  // Loads the first factors of two products, from `band` on. Only `blocks`
  // blocks of bands are there; others are zero.
  KDN_DEVICE void Load(int begin, int band, int blocks,
                       Words (*values)[2][4]) const {
    warp_.Each([&](int lane) {
      const int8_t* first = tile_.At(begin + lane / 4, 0) + lane % 4 * 4;
      KDN_UNROLL
      for (int k = 0; k < 2; ++k) {
        KDN_UNROLL
        for (int i = 0; i < 4; ++i) {
          uint32_t word = 0;
          if (k < blocks) {
            word = LoadAligned<uint32_t>(
                first +
                (band + kBlockBands * k + i / 2) * ValueTile::kBandStride +
                i % 2 * (kTileTokens / 2) * kBandBytes);
          }
          (*values)[k][i][lane] = word;
        }
      }
    });
  }

  KDN_DEVICE void WriteRows(int begin, const Sums (&sums)[kProducts][4],
                            const float* rope) const {
    warp_.Each([&](int lane) {
      const int dim = lane % 4 * 8;
      KDN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int in_tile = lane / 4 + half * kTileTokens / 2;
        const ValueRow value_row = ValueRowAt(batch_, job_, begin + in_tile);
        // This also leaves out rows without a token.
        if (value_row.token >= job_.tokens) continue;
        const float scale = ScaleOf(batch_, job_, head_, value_row.exponent);
        float low[8];
        float high[8];
        LoadEight(room_->means + dim, low);
        LoadEight(room_->means + kBlockDims + dim, high);
        KDN_UNROLL
        for (int i = 0; i < 8; ++i) {
          const int at = 2 * half + i % 2;
          low[i] =
              Plus(Times(FloatOfInt(sums[i / 2][at][lane]), scale), low[i]);
          high[i] = Plus(Times(FloatOfInt(sums[4 + i / 2][at][lane]), scale),
                         high[i]);
        }
        Turn(value_row.token, rope + in_tile * StagedRope::kRow + dim, dim, low,
             high);
        uint8_t* row =
            RowAt(batch_, job_.places, value_row.token) +
            (pair_.head - job_.head_begin) * job_.places.head_stride +
            (is_v_ ? job_.v_offset : 0);
        StoreEight(kType, low, row, pair_.low + dim);
        StoreEight(kType, high, row, pair_.high + dim);
      }
    });
  }

  // `staged` has the token's cosines, if the blocks of the pair turn together.
  KDN_DEVICE void Turn(int token, const float* staged, int dim, float (&low)[8],
                       float (&high)[8]) const {
    if (pair_.turns_together) return TurnHalves(staged, low, high);
    if (is_v_ || job_.pairing != Pairing::kNeighbours) return;
    const float* cos = batch_.rope + job_.rope_at +
                       static_cast<int64_t>(token) * 2 * job_.pairs;
    TurnNeighbours(job_, cos, pair_.low + dim, low);
    TurnNeighbours(job_, cos, pair_.high + dim, high);
  }

  const Warp& warp_;
  const BatchRef& batch_;
  const StreamJob& job_;
  const BlockPair& pair_;
  const bool is_v_;
  const int head_;  // in the stream
  const ValueTile& tile_;
  JointRoom* room_;
};

template <ElementType kType, typename Warp>
KDN_DEVICE void WriteJointBlocksOf(const Warp& warp, const BatchRef& batch,
                                   const StreamJob& job, const ValueTile& tile,
                                   JointRoom* room) {
  const int of_part = PairsOf(job);
  for (int i = 0; i < 2 * of_part; ++i) {
    const bool is_v = i >= of_part;
    const BlockPair pair =
        PairAt(job, is_v ? 0 : job.pairs, is_v ? i - of_part : i);
    JointPairWriter<kType, Warp>(warp, batch, job, pair, is_v, tile, room)
        .Write();
  }
}

template <typename Warp>
KDN_DEVICE void WriteJointInBlocks(const Warp& warp, const BatchRef& batch,
                                   const StreamJob& job, const ValueTile& tile,
                                   JointRoom* room) {
  switch (job.type) {
    case ElementType::kBf16:
      return WriteJointBlocksOf<ElementType::kBf16>(warp, batch, job, tile,
                                                    room);
    case ElementType::kFp16:
      return WriteJointBlocksOf<ElementType::kFp16>(warp, batch, job, tile,
                                                    room);
    case ElementType::kFp32:
      return WriteJointBlocksOf<ElementType::kFp32>(warp, batch, job, tile,
                                                    room);
  }
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_JOINT_ROWS_H_
