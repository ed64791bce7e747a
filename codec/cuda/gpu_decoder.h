#ifndef KDN_CODEC_CUDA_GPU_DECODER_H_
#define KDN_CODEC_CUDA_GPU_DECODER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "codec/cuda/batch_plan.h"
#include "codec/cuda/device_memory.h"

namespace kdn::codec::cuda {

// Decodes transform-coded streams on a GPU, straight into an engine's KV
// memory. Streams that an encoder wrote decode to the same bits as with
// codec/decoder.h. This header does not include CUDA's headers. A
// GpuCalibration and a GpuBatch own memory of the GPU that was current when
// they were made; kernels get references to it, a CalibrationRef and a
// BatchRef. Thread-compatible.

// A calibration on the GPU, for any number of batches. Immutable.
class GpuCalibration {
 public:
  // Copies the image to the GPU, and is done on return. UNAVAILABLE where there
  // is no GPU.
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
  // Bytes of device memory for values, which are decoded from symbols and then
  // turned into rows. A batch needs half as many bytes as its bf16 rows have.
  // If it needs more than this, it is decoded in slices of at least one stream.
  uint64_t values_bytes = uint64_t{1} << 30;
};

// The streams of a plan on the GPU, to be decoded once or more often. All work
// is enqueued on the GpuStream that the batch was made with, which must outlive
// the batch. The destructor waits for that work.
class GpuBatch {
 public:
  // Copies the plan's streams and jobs to the GPU. UNAVAILABLE where there is
  // no GPU. REQUIRES: the calibration's image is the plan's.
  static absl::StatusOr<std::unique_ptr<GpuBatch>> UploadAsync(
      std::shared_ptr<const GpuCalibration> calibration,
      std::shared_ptr<const BatchPlan> plan, const GpuOptions& options,
      GpuStream stream);
  ~GpuBatch();
  GpuBatch(const GpuBatch&) = delete;
  GpuBatch& operator=(const GpuBatch&) = delete;

  // Enqueues the decoding. Later work on the same GpuStream finds the rows, but
  // only FinishSync tells whether they are right.
  absl::Status DecodeAsync();
  // Waits for the last DecodeAsync. DATA_LOSS, naming the first stream with
  // damaged symbols; rows of such streams were not written.
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
