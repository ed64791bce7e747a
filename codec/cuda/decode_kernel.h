#ifndef KDN_CODEC_CUDA_DECODE_KERNEL_H_
#define KDN_CODEC_CUDA_DECODE_KERNEL_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// Where the values of a stream are while it is decoded. Shared memory is
// nearer; device memory leaves room for more warps and has no bound.
enum class TilePlace { kShared, kDevice };

// How a batch is launched, one warp a block.
struct LaunchPlan {
  TilePlace place = TilePlace::kShared;
  bool is_wide = false;  // some stream has more than 128 components
  int blocks = 0;
  uint64_t tile_bytes = 0;
  uint64_t shared_bytes = 0;
  uint64_t scratch_bytes = 0;  // of all blocks, for TilePlace::kDevice
};

// For the current device. `place` is what is wished; tiles that do not fit into
// shared memory go to device memory.
cudaError_t PlanLaunch(TilePlace place, int jobs, uint64_t tile_bytes,
                       int tile_bands, LaunchPlan* plan);

// Enqueues the decoding of a batch in device memory on `stream`. errors[i] is 0
// or 1 for every job when it is done. `scratch` has plan.scratch_bytes.
cudaError_t LaunchDecodeAsync(const BatchRef& batch, const LaunchPlan& plan,
                              int8_t* scratch, cudaStream_t stream);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DECODE_KERNEL_H_
