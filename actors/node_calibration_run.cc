#include "actors/node_calibration_run.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "codec/calibration/calibration_format.h"

namespace kdn::actors {
namespace {

// A run takes at most a quarter of the node's memory, or this much if that is
// more.
constexpr uint64_t kBytesMin = 256u << 20;

// The tokens of the sample that this node has memory for besides the moments.
// RESOURCE_EXHAUSTED if they are too few.
absl::StatusOr<int> SampleTokens(const NodeOptions& options,
                                 const ModelSpec& model) {
  using codec::Calibrator;
  const uint64_t values = 2 * static_cast<uint64_t>(model.num_layers) *
                          static_cast<uint64_t>(model.num_kv_heads) *
                          static_cast<uint64_t>(model.head_dim);
  const uint64_t bytes = std::max(kBytesMin, options.memory_bytes / 4);
  // Finish makes matrices from the moments that are as large again.
  const uint64_t moments = 2 * Calibrator::MomentBytes(model);
  // A vector that grows has up to twice the memory that it needs. Finish makes
  // bytes of the row, for the classes at base and at archive, and fits a
  // predictor to the rows of one stream, and to their squares.
  const uint64_t of_stream =
      4 * sizeof(float) * static_cast<uint64_t>(codec::kJointDimMax);
  const uint64_t row = 2 * values * (sizeof(float) + 2) + of_stream;
  const uint64_t tokens = moments < bytes ? (bytes - moments) / row : 0;
  if (tokens < Calibrator::kSampleTokensMin) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a calibration of ", model.name, " takes ",
        (moments + Calibrator::kSampleTokensMin * row) >> 20,
        " MiB, and this node gives it ", bytes >> 20,
        " MiB: give the node more memory, or use `kdn codec calibrate`"));
  }
  return static_cast<int>(
      std::min<uint64_t>(Calibrator::kSampleTokens, tokens));
}

}  // namespace

absl::StatusOr<std::unique_ptr<delivery::CalibrationRun>>
NodeCalibrationRun::Begin(NodeContext* node, delivery::NodeService* service,
                          const ModelSpec& model) {
  if (absl::Status s = Validate(model); !s.ok()) return s;
  const absl::StatusOr<int> sample = SampleTokens(node->options, model);
  if (!sample.ok()) return sample.status();
  if (node->calibrating.exchange(true)) {
    return absl::ResourceExhaustedError(
        "this node makes another calibration: wait for it, or use another "
        "node");
  }
  absl::StatusOr<codec::Calibrator> calibrator =
      codec::Calibrator::Create(model, *sample);
  if (!calibrator.ok()) {
    node->calibrating = false;
    return calibrator.status();
  }
  return std::unique_ptr<delivery::CalibrationRun>(new NodeCalibrationRun(
      std::make_shared<State>(node, service, *std::move(calibrator))));
}

absl::StatusOr<NodeCalibrationRun::Count> NodeCalibrationRun::AddNow(
    State& state, const KvView& kv, absl::Span<const int32_t> positions,
    absl::Span<const double> importance) {
  if (!state.calibrator) {
    return absl::FailedPreconditionError("the calibration is over");
  }
  if (absl::Status s = state.calibrator->Add(kv, positions, importance);
      !s.ok()) {
    return s;
  }
  return Count{state.calibrator->tokens(), state.calibrator->TokensMin()};
}

void NodeCalibrationRun::Add(const KvView& kv, std::vector<int32_t> positions,
                             std::vector<double> importance,
                             delivery::Done<absl::StatusOr<Count>> done) {
  transfer::WorkPool& pool = state_->node->pool;
  pool.Post(
      {WorkClass::kBackground, pool.NextRequester(), 0},
      [state = state_, kv, positions = std::move(positions),
       importance = std::move(importance), done = std::move(done)]() mutable {
        done(AddNow(*state, kv, positions, importance));
      });
}

absl::StatusOr<std::vector<std::byte>> NodeCalibrationRun::Make(
    const State& state, const delivery::CalibrationChoice& choice) {
  if (!state.calibrator) {
    return absl::FailedPreconditionError("the calibration is over");
  }
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
