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
constexpr int kJointRowsTeams = 4;

// For streams of up to 128 components, and for streams of any size.
using NarrowRoom = RowsRoom<kNarrowBands / kBlockBands>;
using WideRoom = RowsRoom<kDimMax / (kBlockBands * kBandBytes)>;

// A thread block of either kernel is a team.
constexpr int kThreads = kTeamWarps * kWarpLanes;

__device__ int8_t* ValuesOf(const SliceRef& slice, int job) {
  return slice.values +
         static_cast<uint64_t>(job - slice.first_job) * slice.tile_bytes;
}

template <bool kJoint>
__global__ void __launch_bounds__(kThreads, kValuesTeams)
    ValuesKernel(const BatchRef batch, const SliceRef slice) {
  __shared__ ValuesRoom room;
  const Team& team = slice.values_teams[blockIdx.x];
  const DeviceWarp warp(static_cast<int>(threadIdx.x), team.count);
  const int at = team.jobs[warp.rank()];
  const bool good = DecodeStream<kJoint>(warp, batch, batch.jobs[at], &room,
                                         ValuesOf(slice, at));
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

__global__ void __launch_bounds__(kThreads, kJointRowsTeams)
    JointRowsKernel(const BatchRef batch, const SliceRef slice) {
  extern __shared__ Bytes16 shared[];
  // A team has one job, for all its warps.
  const int at = slice.rows_teams[blockIdx.x].jobs[0];
  if (batch.errors[at] != 0) return;
  const StreamJob job = batch.jobs[at];
  const DeviceWarp warp(static_cast<int>(threadIdx.x), kTeamWarps);
  WriteJointStream(warp, batch, job, ValuesOf(slice, at),
                   reinterpret_cast<JointRoom*>(shared));
}

// The kernels for a batch, and the bytes of shared memory of the second.
struct Kernels {
  void (*values)(BatchRef, SliceRef);
  void (*rows)(BatchRef, SliceRef);
  size_t rows_bytes;
};

Kernels KernelsFor(RowsKind kind) {
  switch (kind) {
    case RowsKind::kNarrow:
      return {ValuesKernel<false>, RowsKernel<NarrowRoom, kRowsTeams>,
              sizeof(NarrowRoom)};
    case RowsKind::kWide:
      return {ValuesKernel<false>, RowsKernel<WideRoom, kWideRowsTeams>,
              sizeof(WideRoom)};
    case RowsKind::kJoint:
      break;
  }
  return {ValuesKernel<true>, JointRowsKernel, sizeof(JointRoom)};
}

}  // namespace

cudaError_t LaunchDecodeAsync(const BatchRef& batch, const SliceRef& ref,
                              const Slice& slice, RowsKind kind,
                              cudaStream_t stream) {
  const Kernels kernels = KernelsFor(kind);
  cudaError_t error = cudaFuncSetAttribute(
      kernels.rows, cudaFuncAttributeMaxDynamicSharedMemorySize,
      static_cast<int>(kernels.rows_bytes));
  for (const auto kernel : {kernels.values, kernels.rows}) {
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
  kernels.values<<<slice.values_count, kThreads, 0, stream>>>(batch, part);
  kernels.rows<<<slice.rows_count, kThreads, kernels.rows_bytes, stream>>>(
      batch, part);
  return cudaGetLastError();
}

}  // namespace kdn::codec::cuda
