#ifndef KDN_CODEC_CUDA_DEVICE_STREAM_H_
#define KDN_CODEC_CUDA_DEVICE_STREAM_H_

#include "codec/cuda/block_rows.h"
#include "codec/cuda/synthesis_rows.h"
#include "codec/cuda/value_tile.h"

namespace kdn::codec::cuda {

// What a warp decodes a stream in. Both are aligned to 16 bytes.
struct Workspace {
  CoderTable* tables = nullptr;  // room for two
  int8_t* values = nullptr;      // job.tile_bytes()
};
inline constexpr int kWorkspaceTables = 2;
// Rows of a stream with more dimensions than that are none of this codec's.
inline constexpr int kDimMax = 256;
static_assert(kDimMax * sizeof(float) <= kWorkspaceTables * sizeof(CoderTable));

// Decodes one stream by one warp, straight into the engine's memory. False, and
// no rows, when the symbols are not what was coded. Reads and writes inside
// what the job says, whatever the bytes are. REQUIRES: tile_bands() is at most
// kBlocksMax * kBlockBands where the job is in blocks.
template <int kBlocksMax, typename Warp>
KDN_DEVICE bool DecodeStream(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, const Workspace& workspace) {
  // The tables have done their work when rows are written.
  auto* row = reinterpret_cast<float*>(workspace.tables);
  if (job.levels > 0) {
    const ValueTile tile(workspace.values, job.tile_bands());
    if (!DecodeValues(warp, batch, job, workspace.tables, tile)) return false;
    if (job.in_blocks) {
      WriteInBlocks<kBlocksMax>(warp, batch, job, tile);
    } else {
      WriteRowByRow(warp, batch, job, tile, row);
    }
    warp.Sync();
  }
  WriteRawRows(warp, batch, job, row);
  return true;
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DEVICE_STREAM_H_
