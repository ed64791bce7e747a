#include <algorithm>

#include "codec/cuda/decode_kernel.h"
#include "codec/cuda/device_stream.h"
#include "codec/cuda/device_warp.cuh"

namespace kdn::codec::cuda {
namespace {

constexpr uint64_t kTablesBytes = kWorkspaceTables * sizeof(CoderTable);

// A warp is a block. Those of a grid that is smaller than the batch take more
// than one stream.
template <TilePlace kPlace, int kBlocksMax>
__global__ void __launch_bounds__(kWarpLanes)
    DecodeKernel(const BatchRef batch, int8_t* scratch, uint64_t tile_bytes) {
  extern __shared__ Bytes16 shared[];
  auto* bytes = reinterpret_cast<uint8_t*>(shared);
  Workspace workspace;
  workspace.tables = reinterpret_cast<CoderTable*>(bytes);
  if constexpr (kPlace == TilePlace::kShared) {
    workspace.values = reinterpret_cast<int8_t*>(bytes + kTablesBytes);
  } else {
    workspace.values = scratch + blockIdx.x * tile_bytes;
  }
  const DeviceWarp warp(static_cast<int>(threadIdx.x));
  for (int i = static_cast<int>(blockIdx.x); i < batch.job_count;
       i += static_cast<int>(gridDim.x)) {
    const StreamJob job = batch.jobs[i];
    const bool good = DecodeStream<kBlocksMax>(warp, batch, job, workspace);
    if (threadIdx.x == 0) batch.errors[i] = good ? 0 : 1;
    warp.Sync();
  }
}

using Kernel = void (*)(BatchRef, int8_t*, uint64_t);

Kernel KernelOf(TilePlace place, bool is_wide) {
  constexpr int kNarrow = 4;
  constexpr int kWide = kDimMax / (kBlockBands * kBandBytes);
  if (place == TilePlace::kShared) {
    return is_wide ? DecodeKernel<TilePlace::kShared, kWide>
                   : DecodeKernel<TilePlace::kShared, kNarrow>;
  }
  return is_wide ? DecodeKernel<TilePlace::kDevice, kWide>
                 : DecodeKernel<TilePlace::kDevice, kNarrow>;
}

cudaError_t PrepareShared(Kernel kernel, uint64_t bytes) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  const cudaError_t error = cudaFuncSetAttribute(
      function, cudaFuncAttributeMaxDynamicSharedMemorySize,
      static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(function,
                              cudaFuncAttributePreferredSharedMemoryCarveout,
                              cudaSharedmemCarveoutMaxShared);
}

}  // namespace

cudaError_t PlanLaunch(TilePlace place, int jobs, uint64_t tile_bytes,
                       int tile_bands, LaunchPlan* plan) {
  int device = 0;
  int shared_max = 0;
  int processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(
        &shared_max, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount,
                                   device);
  }
  if (error != cudaSuccess) return error;
  const bool fits = kTablesBytes + tile_bytes <= uint64_t(shared_max);
  plan->place = fits ? place : TilePlace::kDevice;
  plan->is_wide = tile_bands > 4 * kBlockBands;
  plan->tile_bytes = tile_bytes;
  plan->shared_bytes =
      kTablesBytes + (plan->place == TilePlace::kShared ? tile_bytes : 0);
  const Kernel kernel = KernelOf(plan->place, plan->is_wide);
  error = PrepareShared(kernel, plan->shared_bytes);
  if (error != cudaSuccess) return error;
  plan->blocks = jobs;
  plan->scratch_bytes = 0;
  if (plan->place == TilePlace::kShared) return cudaSuccess;
  int resident = 0;
  error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &resident, kernel, kWarpLanes, plan->shared_bytes);
  if (error != cudaSuccess) return error;
  plan->blocks = std::max(1, std::min(jobs, resident * processors));
  plan->scratch_bytes = static_cast<uint64_t>(plan->blocks) * tile_bytes;
  return cudaSuccess;
}

cudaError_t LaunchDecodeAsync(const BatchRef& batch, const LaunchPlan& plan,
                              int8_t* scratch, cudaStream_t stream) {
  if (batch.job_count == 0) return cudaSuccess;
  const Kernel kernel = KernelOf(plan.place, plan.is_wide);
  kernel<<<plan.blocks, kWarpLanes, plan.shared_bytes, stream>>>(
      batch, scratch, plan.tile_bytes);
  return cudaGetLastError();
}

}  // namespace kdn::codec::cuda
