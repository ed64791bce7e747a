#include "codec/cuda/host_batch.h"

#include <memory>
#include <vector>

#include "codec/cuda/device_stream.h"
#include "codec/cuda/host_warp.h"

namespace kdn::codec::cuda {

absl::Status DecodeOnHost(const BatchPlan& plan) {
  constexpr int kBlocksMax = kDimMax / (kBlockBands * kBandBytes);
  std::vector<uint32_t> errors(plan.jobs().size());
  const BatchRef batch{
      .calibration = plan.calibration().ref(),
      .bytes = reinterpret_cast<const uint8_t*>(plan.bytes().data()),
      .rope = plan.rope().data(),
      .blocks = plan.blocks().data(),
      .jobs = plan.jobs().data(),
      .errors = errors.data(),
      .job_count = static_cast<int32_t>(plan.jobs().size())};
  const auto room = std::make_unique<ValuesRoom>();
  const auto rows = std::make_unique<RowsRoom<kBlocksMax>>();
  for (int i = 0; i < batch.job_count; ++i) {
    const StreamJob& job = batch.jobs[i];
    // Exactly as large as the job says, so that AddressSanitizer sees every
    // access outside.
    const auto values = std::make_unique<int8_t[]>(job.tile_bytes());
    if (DecodeStream(HostWarp(), batch, job, room.get(), values.get())) {
      WriteStream(HostWarp(), batch, job, values.get(), rows.get());
    } else {
      errors[i] = 1;
    }
  }
  return plan.StatusOf(errors);
}

}  // namespace kdn::codec::cuda
