#ifndef KDN_CODEC_CUDA_DECODE_KERNEL_H_
#define KDN_CODEC_CUDA_DECODE_KERNEL_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "codec/cuda/stream_job.h"
#include "codec/cuda/teams.h"

namespace kdn::codec::cuda {

// The arguments of the kernels besides the batch.
struct SliceRef {
  const Team* values_teams = nullptr;
  const Team* rows_teams = nullptr;
  // Room for the values of a slice's jobs, which the first kernel decodes and
  // the second turns into rows: tile_bytes for each job, aligned to 16.
  int8_t* values = nullptr;
  uint64_t tile_bytes = 0;
  int32_t first_job = 0;
};

// The kernel that writes the rows of a batch.
enum class RowsKind {
  kNarrow,  // streams of K or V, with up to kNarrowBands bands of values
  kWide,    // streams of K or V
  kJoint,   // joint streams
};
inline constexpr int kNarrowBands = 8;

// Enqueues the decoding of a slice of a batch on `stream`. When it is done,
// batch.errors[i] is 0 or 1 for each job of the slice. All pointers are to
// device memory. `ref` has the teams of the whole batch; `slice` selects from
// them.
cudaError_t LaunchDecodeAsync(const BatchRef& batch, const SliceRef& ref,
                              const Slice& slice, RowsKind kind,
                              cudaStream_t stream);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DECODE_KERNEL_H_
