#ifndef KDN_CODEC_CUDA_DEVICE_STREAM_H_
#define KDN_CODEC_CUDA_DEVICE_STREAM_H_

#include "codec/cuda/block_rows.h"
#include "codec/cuda/synthesis_rows.h"
#include "codec/cuda/value_tile.h"

namespace kdn::codec::cuda {

// A stream is decoded in two passes, by one warp each: symbols to values, in
// which every step waits for the one before, so that many warps are wanted, and
// values to rows, which takes many registers. Teams of warps do what can be
// done for several streams at once.

// Decodes the values of one stream to `values`, job.tile_bytes() aligned to 16.
// False when the symbols are not what was coded. Reads and writes inside what
// the job says, whatever the bytes are.
template <typename Warp>
KDN_DEVICE bool DecodeStream(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, ValuesRoom* room,
                             int8_t* values) {
  if (job.levels == 0) return true;
  return DecodeValues(warp, batch, job, room, TileOf(job, values));
}

// Writes the rows of one stream straight into the engine's memory. REQUIRES:
// tile_bands() is at most Room::kBlocksMax * kBlockBands where the job is in
// blocks.
template <typename Room, typename Warp>
KDN_DEVICE void WriteStream(const Warp& warp, const BatchRef& batch,
                            const StreamJob& job, int8_t* values, Room* room) {
  const ValueTile tile = TileOf(job, values);
  float* row = room->ropes[warp.rank()].floats;
  if (job.levels > 0 && job.in_blocks) {
    WriteInBlocks(warp, batch, job, tile, room);
    warp.SyncTeam();  // no warp turns by what is there any more
  } else if (job.levels > 0 && warp.is_active()) {
    WriteRowByRow(warp, batch, job, tile, row);
  }
  warp.Sync();
  if (warp.is_active()) WriteRawRows(warp, batch, job, row);
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DEVICE_STREAM_H_
