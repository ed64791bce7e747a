#ifndef KDN_CODEC_CUDA_GPU_DECODER_H_
#define KDN_CODEC_CUDA_GPU_DECODER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "codec/cuda/batch_plan.h"
#include "codec/cuda/device_memory.h"

namespace kdn::codec::cuda {

// Decodes transform-coded streams on a GPU straight into an engine's KV memory:
// of whatever an encoder writes the same bits as codec/decoder.h gives. CUDA
// stays behind this header. A GpuCalibration and a GpuBatch own memory of the
// GPU that was current when they were made; what kernels get of it is a
// CalibrationRef and a BatchRef. Thread-compatible.

// A calibration on the GPU, for any number of batches. Immutable.
class GpuCalibration {
 public:
  // UNAVAILABLE where there is no GPU. Done on return.
  static absl::StatusOr<std::shared_ptr<const GpuCalibration>> UploadSync(
      std::shared_ptr<const CalibrationImage> image, GpuStream stream);

  const CalibrationImage& image() const { return *image_; }
  const CalibrationRef& ref() const { return ref_; }

 private:
  GpuCalibration() = default;

  std::shared_ptr<const CalibrationImage> image_;
  DeviceMemory memory_;
  CalibrationRef ref_{};
};

struct GpuOptions {
  // Device memory for values between symbols and rows. A batch that needs more
  // (half the bytes of its bf16 rows) is decoded in parts, one stream at
  // least.
  uint64_t values_bytes = uint64_t{1} << 30;
};

// The streams of a plan on the GPU, to be decoded once or more often. All work
// is enqueued on the stream that it was made with, which must outlive it; its
// destructor waits for that work.
class GpuBatch {
 public:
  // Copies the plan's streams and jobs. UNAVAILABLE where there is no GPU.
  // REQUIRES: the calibration's image is the plan's.
  static absl::StatusOr<std::unique_ptr<GpuBatch>> UploadAsync(
      std::shared_ptr<const GpuCalibration> calibration,
      std::shared_ptr<const BatchPlan> plan, const GpuOptions& options,
      GpuStream stream);
  ~GpuBatch();
  GpuBatch(const GpuBatch&) = delete;
  GpuBatch& operator=(const GpuBatch&) = delete;

  // Enqueues the decoding. Rows are good for later work on the same stream once
  // FinishSync has said so, or for work that does not mind a damaged stream.
  absl::Status DecodeAsync();
  // Waits for the last DecodeAsync. DATA_LOSS naming the first stream whose
  // symbols are not what was coded; its rows were not written.
  absl::Status FinishSync();

 private:
  struct Device;

  GpuBatch();

  std::shared_ptr<const GpuCalibration> calibration_;
  std::shared_ptr<const BatchPlan> plan_;
  GpuStream stream_ = nullptr;
  std::unique_ptr<Device> device_;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_GPU_DECODER_H_
