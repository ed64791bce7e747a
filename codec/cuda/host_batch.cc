#include "codec/cuda/host_batch.h"

#include <memory>
#include <vector>

#include "codec/cuda/device_stream.h"
#include "codec/cuda/host_warp.h"

namespace kdn::codec::cuda {

namespace {

constexpr int kBlocksMax = kDimMax / (kBlockBands * kBandBytes);

// Decodes one stream. Returns its error.
uint32_t Decode(const BatchRef& batch, const StreamJob& job, ValuesRoom* room,
                RowsRoom<kBlocksMax>* rows, int8_t* values) {
  if (!DecodeStream<false>(HostWarp(), batch, job, room, values)) return 1;
  WriteStream(HostWarp(), batch, job, values, rows);
  return 0;
}
uint32_t DecodeJoint(const BatchRef& batch, const StreamJob& job,
                     ValuesRoom* room, JointRoom* rows, int8_t* values) {
  if (!DecodeStream<true>(HostWarp(), batch, job, room, values)) return 1;
  WriteJointStream(HostWarp(), batch, job, values, rows);
  return 0;
}

}  // namespace

BatchRef HostBatchOf(const BatchPlan& plan, uint32_t* errors) {
  return {.calibration = plan.calibration().ref(),
          .bytes = reinterpret_cast<const uint8_t*>(plan.bytes().data()),
          .rope = plan.rope().data(),
          .blocks = plan.blocks().data(),
          .runs = plan.runs().data(),
          .value_rows = plan.value_rows().data(),
          .scales = plan.scales().data(),
          .jobs = plan.jobs().data(),
          .errors = errors,
          .job_count = static_cast<int32_t>(plan.jobs().size())};
}

absl::Status DecodeOnHost(const BatchPlan& plan) {
  std::vector<uint32_t> errors(plan.jobs().size());
  const BatchRef batch = HostBatchOf(plan, errors.data());
  const auto room = std::make_unique<ValuesRoom>();
  const auto rows = std::make_unique<RowsRoom<kBlocksMax>>();
  const auto joint_rows = std::make_unique<JointRoom>();
  for (int i = 0; i < batch.job_count; ++i) {
    const StreamJob& job = batch.jobs[i];
    // Exactly as large as the job says, so that AddressSanitizer sees every
    // access outside.
    const auto values = std::make_unique<int8_t[]>(job.tile_bytes());
    errors[i] = plan.is_joint()
                    ? DecodeJoint(batch, job, room.get(), joint_rows.get(),
                                  values.get())
                    : Decode(batch, job, room.get(), rows.get(), values.get());
  }
  return plan.StatusOf(errors);
}

}  // namespace kdn::codec::cuda
