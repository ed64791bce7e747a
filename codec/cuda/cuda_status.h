#ifndef KDN_CODEC_CUDA_CUDA_STATUS_H_
#define KDN_CODEC_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kdn::codec::cuda {

// OK for cudaSuccess. UNAVAILABLE where there is no GPU to use,
// RESOURCE_EXHAUSTED where it has no memory, else INTERNAL; `what` was tried.
absl::Status StatusOfCuda(cudaError_t error, absl::string_view what);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_CUDA_STATUS_H_
