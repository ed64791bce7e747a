#include "actors/node_calibration_run.h"

#include <algorithm>

#include "codec/calibration/calibration_format.h"

namespace kdn::actors {
namespace {

// The sample of a run takes at most a quarter of the node's memory, and at
// least this much.
constexpr uint64_t kSampleBytesMin = 256u << 20;

// A calibrator holds the sample in floats.
int SampleTokens(const NodeOptions& options, const ModelSpec& model) {
  const uint64_t values = 2 * static_cast<uint64_t>(model.num_layers) *
                          static_cast<uint64_t>(model.num_kv_heads) *
                          static_cast<uint64_t>(model.head_dim);
  const uint64_t bytes = std::max(kSampleBytesMin, options.memory_bytes / 4);
  return static_cast<int>(std::min<uint64_t>(codec::Calibrator::kSampleTokens,
                                             bytes / (values * sizeof(float))));
}

}  // namespace

absl::StatusOr<std::unique_ptr<delivery::CalibrationRun>>
NodeCalibrationRun::Begin(NodeContext* node, delivery::NodeService* service,
                          const ModelSpec& model) {
  absl::StatusOr<codec::Calibrator> calibrator =
      codec::Calibrator::Create(model, SampleTokens(node->options, model));
  if (!calibrator.ok()) return calibrator.status();
  if (node->calibrating.exchange(true)) {
    return absl::ResourceExhaustedError(
        "this node makes another calibration: wait for it, or use another "
        "node");
  }
  return std::unique_ptr<delivery::CalibrationRun>(new NodeCalibrationRun(
      std::make_shared<State>(node, service, *std::move(calibrator))));
}

absl::StatusOr<NodeCalibrationRun::Count> NodeCalibrationRun::AddNow(
    State& state, const KvView& kv, absl::Span<const int32_t> positions) {
  if (absl::Status s = state.calibrator->Add(kv, positions); !s.ok()) return s;
  return Count{state.calibrator->tokens(), state.calibrator->TokensMin()};
}

void NodeCalibrationRun::Add(const KvView& kv, std::vector<int32_t> positions,
                             delivery::Done<absl::StatusOr<Count>> done) {
  transfer::WorkPool& pool = state_->node->pool;
  pool.Post({WorkClass::kBackground, pool.NextRequester(), 0},
            [state = state_, kv, positions = std::move(positions),
             done = std::move(done)]() mutable {
              done(AddNow(*state, kv, positions));
            });
}

absl::StatusOr<std::vector<std::byte>> NodeCalibrationRun::Make(
    const State& state, const delivery::CalibrationChoice& choice) {
  codec::Calibrator::Options options;
  options.base_bits = choice.base_bits;
  options.weights = choice.weights;
  absl::StatusOr<codec::StoredCalibration> stored =
      state.calibrator->Finish(options);
  if (!stored.ok()) return stored.status();
  stored->info.created = state.node->clock->WallNow();
  return codec::WriteCalibration(*stored);
}

void NodeCalibrationRun::Finish(
    delivery::CalibrationChoice choice, absl::Time deadline,
    delivery::Done<absl::StatusOr<CalibrationReceipt>> done) {
  transfer::WorkPool& pool = state_->node->pool;
  pool.Post({WorkClass::kBackground, pool.NextRequester(), 0},
            [state = state_, choice = std::move(choice), deadline,
             done = std::move(done)]() mutable {
              absl::StatusOr<std::vector<std::byte>> file =
                  Make(*state, choice);
              state->End();
              if (!file.ok()) return done(file.status());
              state->service->StoreCalibration(*std::move(file), deadline,
                                               std::move(done));
            });
}

}  // namespace kdn::actors
