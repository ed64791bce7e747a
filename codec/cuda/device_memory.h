#ifndef KDN_CODEC_CUDA_DEVICE_MEMORY_H_
#define KDN_CODEC_CUDA_DEVICE_MEMORY_H_

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// What cudaStream_t points to.
struct CUstream_st;

namespace kdn::codec::cuda {

// A cudaStream_t, for headers that do not include CUDA's headers. No function
// has a default for this argument.
using GpuStream = CUstream_st*;

// OK when there is a GPU that this program can use; otherwise UNAVAILABLE, with
// CUDA's own message.
absl::Status CheckGpu();

// Memory of the current GPU, aligned to 256 bytes. It is allocated and freed in
// the order of a stream, so work that was enqueued there before may still use
// the memory when this object is destroyed. The stream must outlive this
// object. Movable.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // Work that is enqueued on `stream` later may use the memory.
  // RESOURCE_EXHAUSTED when the GPU has no room.
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
  // Enqueues a copy of host memory to `offset`. Host memory that is not pinned
  // has been read on return. REQUIRES: the copy fits.
  absl::Status CopyInAsync(size_t offset, const void* from, size_t bytes,
                           GpuStream stream) const;
  // Copies to host memory. Returns when the copy is done, and all work that was
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
