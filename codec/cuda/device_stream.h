#ifndef KDN_CODEC_CUDA_DEVICE_STREAM_H_
#define KDN_CODEC_CUDA_DEVICE_STREAM_H_

#include "codec/cuda/block_rows.h"
#include "codec/cuda/joint_rows.h"
#include "codec/cuda/synthesis_rows.h"
#include "codec/cuda/value_tile.h"

namespace kdn::codec::cuda {

// A stream is decoded in two passes, each by one warp, or the second by a team
// if the stream is joint. The first turns symbols into values; every step waits
// for the step before, so many warps must run at once. The second turns values
// into rows, which takes many registers. The warps of a team share the work
// that several streams have in common.

// Decodes the values of one stream, joint if `kJoint`, to `values`, which has
// job.tile_bytes() bytes and is aligned to 16. False when the symbols are
// damaged. Whatever the bytes are, it reads and writes inside the memory of the
// job only.
template <bool kJoint, typename Warp>
KDN_DEVICE bool DecodeStream(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, ValuesRoom* room,
                             int8_t* values) {
  if (job.levels == 0) return true;
  return DecodeValues<kJoint>(warp, batch, job, room, TileOf(job, values));
}

// Writes the rows of one stream straight into the engine's memory. REQUIRES: if
// the job is in blocks, its tile_bands() is at most Room::kBlocksMax *
// kBlockBands.
template <typename Room, typename Warp>
KDN_DEVICE void WriteStream(const Warp& warp, const BatchRef& batch,
                            const StreamJob& job, int8_t* values, Room* room) {
  const ValueTile tile = TileOf(job, values);
  float* row = room->ropes[warp.rank()].floats;
  if (job.levels > 0 && job.in_blocks) {
    WriteInBlocks(warp, batch, job, tile, room);
    warp.SyncTeam();  // no warp reads the ropes any more
  } else if (job.levels > 0 && warp.is_active()) {
    WriteRowByRow(warp, batch, job, tile, row);
  }
  warp.Sync();
  if (warp.is_active()) WriteRawRows<false>(warp, batch, job, row);
}

// The same for a joint stream. All warps of a team call it with the same job.
template <typename Warp>
KDN_DEVICE void WriteJointStream(const Warp& warp, const BatchRef& batch,
                                 const StreamJob& job, int8_t* values,
                                 JointRoom* room) {
  const ValueTile tile = TileOf(job, values);
  float* row = room->ropes[warp.rank()].floats;
  if (job.levels > 0 && job.in_blocks) {
    WriteJointInBlocks(warp, batch, job, tile, room);
    warp.Sync();  // no lane reads the warp's rope any more
  } else if (job.levels > 0) {
    WriteJointRowByRow(warp, batch, job, tile, row);
  }
  // No row of values has the token of a raw row, so the order does not matter.
  WriteRawRows<true>(warp, batch, job, row);
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DEVICE_STREAM_H_
