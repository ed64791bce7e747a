#ifndef KDN_CODEC_CUDA_DEVICE_MEMORY_H_
#define KDN_CODEC_CUDA_DEVICE_MEMORY_H_

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// What cudaStream_t points to.
struct CUstream_st;

namespace kdn::codec::cuda {

// A cudaStream_t, for headers that do not need CUDA's. Never defaulted.
using GpuStream = CUstream_st*;

// OK when there is a GPU that this program can use; UNAVAILABLE with CUDA's own
// words when there is not.
absl::Status CheckGpu();

// A piece of the current GPU's memory, aligned to 256 bytes. Taken and given
// back in the order of a stream: work enqueued there before may still use it
// when it is destroyed. The stream must outlive it. Movable.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // RESOURCE_EXHAUSTED when the GPU has no room. Ready for work that is
  // enqueued on `stream` later.
  static absl::StatusOr<DeviceMemory> AllocateAsync(size_t bytes,
                                                    GpuStream stream);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        stream_(other.stream_) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(stream_, other.stream_);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  // Copies host memory to `offset`. Memory that is not pinned has been read on
  // return. REQUIRES: it fits.
  absl::Status CopyInAsync(size_t offset, const void* from, size_t bytes,
                           GpuStream stream) const;
  // Copies to host memory, and is back when that is done and all that was
  // enqueued on `stream` before.
  absl::Status CopyOutSync(size_t offset, void* to, size_t bytes,
                           GpuStream stream) const;

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  GpuStream stream_ = nullptr;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DEVICE_MEMORY_H_
