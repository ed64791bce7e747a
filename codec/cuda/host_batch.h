#ifndef KDN_CODEC_CUDA_HOST_BATCH_H_
#define KDN_CODEC_CUDA_HOST_BATCH_H_

#include "absl/status/status.h"
#include "codec/cuda/batch_plan.h"

namespace kdn::codec::cuda {

// Decodes a plan with the warps' own code on this thread, into host memory. It
// is what tests hold against the CPU decoder where there is no GPU; slow. Same
// results as GpuDecoder.
absl::Status DecodeOnHost(const BatchPlan& plan);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_HOST_BATCH_H_
