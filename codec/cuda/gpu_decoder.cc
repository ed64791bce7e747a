#include "codec/cuda/gpu_decoder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "codec/cuda/cuda_status.h"
#include "codec/cuda/decode_kernel.h"
#include "kv/check.h"

namespace kdn::codec::cuda {
namespace {

// Arrays that lie one after the other in one piece of device memory, each
// aligned.
class Arrays {
 public:
  template <typename T>
  size_t Add(const std::vector<T>& array) {
    const size_t at = AddRoom(array.size() * sizeof(T));
    parts_.push_back({at, array.data(), array.size() * sizeof(T)});
    return at;
  }
  size_t AddRoom(size_t bytes) {
    constexpr size_t kAlignment = 256;
    const size_t at = bytes_;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }

  absl::StatusOr<DeviceMemory> UploadAsync(GpuStream stream) const {
    auto memory = DeviceMemory::AllocateAsync(bytes_, stream);
    if (!memory.ok()) return memory.status();
    for (const Part& part : parts_) {
      absl::Status copied =
          memory->CopyInAsync(part.at, part.data, part.bytes, stream);
      if (!copied.ok()) return copied;
    }
    return memory;
  }

 private:
  struct Part {
    size_t at;
    const void* data;
    size_t bytes;
  };
  std::vector<Part> parts_;
  size_t bytes_ = 0;
};

template <typename T>
T* At(const DeviceMemory& memory, size_t offset) {
  return reinterpret_cast<T*>(memory.data() + offset);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const GpuCalibration>>
GpuCalibration::UploadSync(std::shared_ptr<const CalibrationImage> image,
                           GpuStream stream) {
  if (absl::Status s = CheckGpu(); !s.ok()) return s;
  Arrays arrays;
  const size_t tables = arrays.Add(image->tables());
  const size_t values = arrays.Add(image->values());
  const size_t transforms = arrays.Add(image->transforms());
  const size_t bands = arrays.Add(image->bands());
  const size_t means = arrays.Add(image->means());
  const size_t synthesis = arrays.Add(image->synthesis());
  auto memory = arrays.UploadAsync(stream);
  if (!memory.ok()) return memory.status();
  std::shared_ptr<GpuCalibration> made(new GpuCalibration());
  made->image_ = std::move(image);
  made->memory_ = *std::move(memory);
  made->ref_ = {At<CoderTable>(made->memory_, tables),
                At<ValueTable>(made->memory_, values),
                At<TransformRef>(made->memory_, transforms),
                At<BandRef>(made->memory_, bands),
                At<float>(made->memory_, means),
                At<uint32_t>(made->memory_, synthesis)};
  absl::Status done = StatusOfCuda(cudaStreamSynchronize(stream),
                                   "copying a calibration to the GPU");
  if (!done.ok()) return done;
  return made;
}

struct GpuBatch::Device {
  DeviceMemory memory;
  size_t errors_at = 0;
  BatchRef batch;
  SliceRef slices;
  TeamPlan teams;
  int tile_bands = 0;
};

GpuBatch::GpuBatch() : device_(std::make_unique<Device>()) {}

GpuBatch::~GpuBatch() {
  // This batch's work may still read the calibration, which is freed in the
  // order of another stream.
  static_cast<void>(cudaStreamSynchronize(stream_));
}

absl::StatusOr<std::unique_ptr<GpuBatch>> GpuBatch::UploadAsync(
    std::shared_ptr<const GpuCalibration> calibration,
    std::shared_ptr<const BatchPlan> plan, const GpuOptions& options,
    GpuStream stream) {
  if (absl::Status s = CheckGpu(); !s.ok()) return s;
  KDN_CHECK(&calibration->image() == &plan->calibration(),
            "the plan's calibration");
  std::unique_ptr<GpuBatch> made(new GpuBatch());
  Device& device = *made->device_;
  const size_t jobs = plan->jobs().size();
  const uint64_t tile_bytes = std::max(plan->tile_bytes(), uint64_t{1});
  const uint64_t at_a_time = std::clamp(options.values_bytes / tile_bytes,
                                        uint64_t{1}, std::max(jobs, size_t{1}));
  device.teams = PlanTeams(plan->jobs(), static_cast<int>(at_a_time));
  device.tile_bands = plan->tile_bands();
  Arrays arrays;
  const size_t jobs_at = arrays.Add(plan->jobs());
  const size_t values_teams_at = arrays.Add(device.teams.values);
  const size_t rows_teams_at = arrays.Add(device.teams.rows);
  const size_t bytes_at = arrays.Add(plan->bytes());
  const size_t rope_at = arrays.Add(plan->rope());
  const size_t blocks_at = arrays.Add(plan->blocks());
  const size_t runs_at = arrays.Add(plan->runs());
  const size_t value_rows_at = arrays.Add(plan->value_rows());
  const size_t scales_at = arrays.Add(plan->scales());
  device.errors_at = arrays.AddRoom(sizeof(uint32_t) * jobs);
  const size_t values_at = arrays.AddRoom(at_a_time * tile_bytes);
  auto memory = arrays.UploadAsync(stream);
  if (!memory.ok()) return memory.status();
  device.memory = *std::move(memory);
  device.batch = {.calibration = calibration->ref(),
                  .bytes = At<uint8_t>(device.memory, bytes_at),
                  .rope = At<float>(device.memory, rope_at),
                  .blocks = At<int32_t>(device.memory, blocks_at),
                  .runs = At<RowRun>(device.memory, runs_at),
                  .value_rows = At<ValueRow>(device.memory, value_rows_at),
                  .scales = At<float>(device.memory, scales_at),
                  .jobs = At<StreamJob>(device.memory, jobs_at),
                  .errors = At<uint32_t>(device.memory, device.errors_at),
                  .job_count = static_cast<int32_t>(jobs)};
  device.slices = {.values_teams = At<Team>(device.memory, values_teams_at),
                   .rows_teams = At<Team>(device.memory, rows_teams_at),
                   .values = At<int8_t>(device.memory, values_at),
                   .tile_bytes = tile_bytes};
  made->calibration_ = std::move(calibration);
  made->plan_ = std::move(plan);
  made->stream_ = stream;
  return made;
}

absl::Status GpuBatch::DecodeAsync() {
  const RowsKind rows = plan_->is_joint() ? RowsKind::kJoint
                        : device_->tile_bands > kNarrowBands
                            ? RowsKind::kWide
                            : RowsKind::kNarrow;
  for (const Slice& slice : device_->teams.slices) {
    absl::Status launched =
        StatusOfCuda(LaunchDecodeAsync(device_->batch, device_->slices, slice,
                                       rows, stream_),
                     "starting to decode on the GPU");
    if (!launched.ok()) return launched;
  }
  return absl::OkStatus();
}

absl::Status GpuBatch::FinishSync() {
  std::vector<uint32_t> errors(plan_->jobs().size());
  absl::Status copied =
      device_->memory.CopyOutSync(device_->errors_at, errors.data(),
                                  errors.size() * sizeof(uint32_t), stream_);
  if (!copied.ok()) return copied;
  return plan_->StatusOf(errors);
}

}  // namespace kdn::codec::cuda
