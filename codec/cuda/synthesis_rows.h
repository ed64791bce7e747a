#ifndef KDN_CODEC_CUDA_SYNTHESIS_ROWS_H_
#define KDN_CODEC_CUDA_SYNTHESIS_ROWS_H_

#include "codec/cuda/row_store.h"
#include "codec/cuda/value_tile.h"

namespace kdn::codec::cuda {

// Turns values into rows: sums of integers, which do not depend on their order,
// then a float product and a float sum, each rounded as on the CPU.

// `sum` plus a dimension's products with some bands of a row of values. `band`
// is the first of them in the tile; in the synthesis it is the first of all.
KDN_DEVICE int32_t AddBands(const BatchRef& batch,
                            const TransformRef& transform,
                            const ValueTile& tile, int row, int band, int bands,
                            int dim, int32_t sum) {
  for (int quad = 0; quad < 4 * bands; ++quad) {
    const auto values =
        LoadAligned<uint32_t>(tile.At(row, band + quad / 4) + quad % 4 * 4);
    sum = AddProducts(
        values,
        batch.calibration.synthesis[SynthesisWord(transform, dim, quad)], sum);
  }
  return sum;
}

// Takes any shape: one token at a time, one dimension per lane. `row` has room
// for a row of the stream.
template <typename Warp>
KDN_DEVICE void WriteRowByRow(const Warp& warp, const BatchRef& batch,
                              const StreamJob& job, const ValueTile& tile,
                              float* row) {
  const TransformRef& transform = batch.calibration.transforms[job.transform];
  for (int token = 0; token < job.tokens; ++token) {
    warp.Each([&](int lane) {
      for (int d = lane; d < transform.dim; d += kWarpLanes) {
        const int32_t sum = AddBands(batch, transform, tile, token, 0,
                                     job.used_bands, d, kNoSum);
        row[d] = Plus(Times(FloatOfSum(sum), job.scale), MeanOf(batch, job, d));
      }
    });
    warp.Sync();
    StoreRow<false>(warp, batch, job, token, row);
    warp.Sync();
  }
}

// Writes the raw rows, over the rows that were written before. Of a joint
// stream, each warp of a team writes some.
template <bool kJoint, typename Warp>
KDN_DEVICE void WriteRawRows(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, float* row) {
  const int dim = batch.calibration.transforms[job.transform].dim;
  const uint32_t first = kJoint ? warp.rank() : 0;
  const uint32_t stride = kJoint ? Warp::kTeam : 1;
  for (uint32_t i = first; i < job.raw_rows; i += stride) {
    const int token =
        job.raw_tokens_at == kNowhere
            ? static_cast<int>(i)
            : LoadU16(batch.bytes, job.raw_tokens_at + 2 * uint64_t{i});
    // The host has checked this. It is checked again, because a write depends
    // on it.
    if (token >= job.tokens) continue;
    warp.Each([&](int lane) {
      for (int d = lane; d < dim; d += kWarpLanes) {
        row[d] = FloatOfBf16(
            LoadU16(batch.bytes,
                    job.raw_rows_at + 2 * (uint64_t{i} * dim + uint64_t(d))));
      }
    });
    warp.Sync();
    StoreRow<kJoint>(warp, batch, job, token, row);
    warp.Sync();
  }
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_SYNTHESIS_ROWS_H_
