#ifndef KDN_CODEC_CUDA_HOST_BATCH_H_
#define KDN_CODEC_CUDA_HOST_BATCH_H_

#include "absl/status/status.h"
#include "codec/cuda/batch_plan.h"

namespace kdn::codec::cuda {

// A plan in host memory. `errors` has one number for each job.
BatchRef HostBatchOf(const BatchPlan& plan, uint32_t* errors);

// Decodes a plan into host memory, with the warps' own code, on this thread.
// Tests compare it with the CPU decoder where there is no GPU. Slow. Gives the
// same results as GpuBatch.
absl::Status DecodeOnHost(const BatchPlan& plan);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_HOST_BATCH_H_
