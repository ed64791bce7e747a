#include "codec/cuda/decode_kernel.h"
#include "codec/cuda/device_stream.h"
#include "codec/cuda/device_warp.cuh"

namespace kdn::codec::cuda {
namespace {

// How many teams a multiprocessor should have room for. Decoding values needs
// many warps: each step of a coder waits for the step before, and other warps
// hide the wait. Writing rows needs many registers.
constexpr int kValuesTeams = 8;
constexpr int kRowsTeams = 4;
constexpr int kWideRowsTeams = 2;

// For streams of up to 128 components, and for streams of any size.
using NarrowRoom = RowsRoom<4>;
using WideRoom = RowsRoom<kDimMax / (kBlockBands * kBandBytes)>;

// A thread block of either kernel is a team.
constexpr int kThreads = kTeamWarps * kWarpLanes;

__device__ int8_t* ValuesOf(const SliceRef& slice, int job) {
  return slice.values +
         static_cast<uint64_t>(job - slice.first_job) * slice.tile_bytes;
}

__global__ void __launch_bounds__(kThreads, kValuesTeams)
    ValuesKernel(const BatchRef batch, const SliceRef slice) {
  __shared__ ValuesRoom room;
  const Team& team = slice.values_teams[blockIdx.x];
  const DeviceWarp warp(static_cast<int>(threadIdx.x), team.count);
  const int at = team.jobs[warp.rank()];
  const bool good =
      DecodeStream(warp, batch, batch.jobs[at], &room, ValuesOf(slice, at));
  if (warp.is_active() && threadIdx.x % kWarpLanes == 0) {
    batch.errors[at] = good ? 0 : 1;
  }
}

template <typename Room, int kTeams>
__global__ void __launch_bounds__(kThreads, kTeams)
    RowsKernel(const BatchRef batch, const SliceRef slice) {
  extern __shared__ Bytes16 shared[];
  const Team& team = slice.rows_teams[blockIdx.x];
  const int rank = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int at = team.jobs[rank];
  // A copy, because rows could lie anywhere: without it every field would be
  // read again after each row.
  const StreamJob job = batch.jobs[at];
  const bool good = batch.errors[at] == 0;
  const DeviceWarp warp(static_cast<int>(threadIdx.x), good ? team.count : 0);
  WriteStream(warp, batch, job, ValuesOf(slice, at),
              reinterpret_cast<Room*>(shared));
}

}  // namespace

cudaError_t LaunchDecodeAsync(const BatchRef& batch, const SliceRef& ref,
                              const Slice& slice, int tile_bands,
                              cudaStream_t stream) {
  const bool is_wide = tile_bands > NarrowRoom::kBlocksMax * kBlockBands;
  const auto rows = is_wide ? RowsKernel<WideRoom, kWideRowsTeams>
                            : RowsKernel<NarrowRoom, kRowsTeams>;
  const size_t rows_bytes = is_wide ? sizeof(WideRoom) : sizeof(NarrowRoom);
  cudaError_t error =
      cudaFuncSetAttribute(rows, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(rows_bytes));
  for (const void* kernel : {reinterpret_cast<const void*>(ValuesKernel),
                             reinterpret_cast<const void*>(rows)}) {
    if (error != cudaSuccess) return error;
    error = cudaFuncSetAttribute(kernel,
                                 cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared);
  }
  if (error != cudaSuccess) return error;
  SliceRef part = ref;
  part.values_teams += slice.values_first;
  part.rows_teams += slice.rows_first;
  part.first_job = slice.first;
  ValuesKernel<<<slice.values_count, kThreads, 0, stream>>>(batch, part);
  rows<<<slice.rows_count, kThreads, rows_bytes, stream>>>(batch, part);
  return cudaGetLastError();
}

}  // namespace kdn::codec::cuda
