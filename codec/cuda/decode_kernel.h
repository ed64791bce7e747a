#ifndef KDN_CODEC_CUDA_DECODE_KERNEL_H_
#define KDN_CODEC_CUDA_DECODE_KERNEL_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "codec/cuda/stream_job.h"
#include "codec/cuda/teams.h"

namespace kdn::codec::cuda {

// What kernels get beside the batch.
struct SliceRef {
  const Team* values_teams = nullptr;
  const Team* rows_teams = nullptr;
  // A slice's values between its symbols and its rows: tile_bytes for each of
  // its jobs, aligned to 16.
  int8_t* values = nullptr;
  uint64_t tile_bytes = 0;
  int32_t first_job = 0;
};

// Enqueues the decoding of some of a batch's jobs in device memory on `stream`.
// errors[i] is 0 or 1 for each of them when it is done. `tile_bands` is the
// most of a job. The teams of `ref` are all of the batch, those of `slice` are
// taken.
cudaError_t LaunchDecodeAsync(const BatchRef& batch, const SliceRef& ref,
                              const Slice& slice, int tile_bands,
                              cudaStream_t stream);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DECODE_KERNEL_H_
