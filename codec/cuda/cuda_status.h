#ifndef KDN_CODEC_CUDA_CUDA_STATUS_H_
#define KDN_CODEC_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kdn::codec::cuda {

// The status of a CUDA call: OK for cudaSuccess, UNAVAILABLE when there is no
// usable GPU, RESOURCE_EXHAUSTED when the GPU has no memory left, otherwise
// INTERNAL. `what` names the attempt in the message.
absl::Status StatusOfCuda(cudaError_t error, absl::string_view what);

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_CUDA_STATUS_H_
