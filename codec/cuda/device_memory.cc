#include "codec/cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "codec/cuda/cuda_status.h"
#include "kv/check.h"

namespace kdn::codec::cuda {

absl::Status StatusOfCuda(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorName(error),
                                           ": ", cudaGetErrorString(error));
  switch (error) {
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorStubLibrary:
    case cudaErrorInitializationError:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorDevicesUnavailable:
      return absl::UnavailableError(message);
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::Status CheckGpu() {
  // Not set where there is no driver.
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return StatusOfCuda(error, "looking for a GPU");
  if (count > 0) return absl::OkStatus();
  return absl::UnavailableError("looking for a GPU: there is none");
}

absl::StatusOr<DeviceMemory> DeviceMemory::AllocateAsync(size_t bytes,
                                                         GpuStream stream) {
  DeviceMemory memory;
  void* data = nullptr;
  const cudaError_t error =
      cudaMallocAsync(&data, std::max<size_t>(bytes, 1), stream);
  if (error != cudaSuccess) {
    return StatusOfCuda(error, absl::StrCat("taking ", bytes, " bytes"));
  }
  memory.data_ = static_cast<std::byte*>(data);
  memory.bytes_ = bytes;
  memory.stream_ = stream;
  return memory;
}

DeviceMemory::~DeviceMemory() {
  // An error here is of work that was enqueued before; the caller that waits
  // for that work gets it.
  if (data_ != nullptr) static_cast<void>(cudaFreeAsync(data_, stream_));
}

absl::Status DeviceMemory::CopyInAsync(size_t offset, const void* from,
                                       size_t bytes, GpuStream stream) const {
  KDN_CHECK(offset <= bytes_ && bytes <= bytes_ - offset, "a copy that fits");
  if (bytes == 0) return absl::OkStatus();
  return StatusOfCuda(cudaMemcpyAsync(data_ + offset, from, bytes,
                                      cudaMemcpyHostToDevice, stream),
                      "copying to the GPU");
}

absl::Status DeviceMemory::CopyOutSync(size_t offset, void* to, size_t bytes,
                                       GpuStream stream) const {
  KDN_CHECK(offset <= bytes_ && bytes <= bytes_ - offset, "a copy that fits");
  cudaError_t error = cudaMemcpyAsync(to, data_ + offset, bytes,
                                      cudaMemcpyDeviceToHost, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  return StatusOfCuda(error, "waiting for the GPU");
}

}  // namespace kdn::codec::cuda
