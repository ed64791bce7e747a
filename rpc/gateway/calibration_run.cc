#include "rpc/gateway/calibration_run.h"

#include <utility>
#include <vector>

#include "rpc/gateway/calibration_receipt.h"
#include "rpc/gateway/wire.h"
#include "rpc/wire.h"

namespace kdn::rpc {

absl::Status CalibrationRunServer::CheckOpen(const Run& run) const {
  if (absl::Status s = session_->CheckOpen(); !s.ok()) return s;
  if (run != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the calibration is over: it was finished, or its deadline passed");
}

absl::StatusOr<KvView> CalibrationRunServer::ViewOf(
    wire::CalibrationRun::AddParams::Reader params) const {
  const uint64_t tokens = params.getPositions().size();
  if (absl::Status s = CheckPositionCount(tokens); !s.ok()) return s;
  const KvShape shape = ShapeOf(*model_, static_cast<int>(tokens));
  const KvStrides strides = FromWire(params.getStrides());
  const auto bytes = params.getBytes();
  if (absl::Status s = ValidateInside(shape, strides, 0, bytes.size());
      !s.ok()) {
    return s;
  }
  return KvView(reinterpret_cast<const std::byte*>(bytes.begin()), shape,
                strides);
}

// No allowCancellation: the node reads the KV from this call's message.
kj::Promise<void> CalibrationRunServer::add(AddContext context) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  auto before = kj::mv(turn_);
  turn_ = kj::mv(paf.promise);
  return before
      .then([this, context, run = run_] { return AddNow(context, run); })
      .attach(kj::defer(
          [done = kj::mv(paf.fulfiller)]() mutable { done->fulfill(); }));
}

kj::Promise<void> CalibrationRunServer::AddNow(AddContext context,
                                               const Run& run) {
  using Count = absl::StatusOr<delivery::CalibrationRun::Count>;
  const auto params = context.getParams();
  absl::Status status = CheckOpen(run);
  const absl::StatusOr<KvView> view = ViewOf(params);
  if (status.ok()) status = view.status();
  std::vector<int32_t> positions;
  if (status.ok()) {
    positions = FromWire(params.getPositions());
    status = CheckPositions(positions);
  }
  if (!status.ok()) {
    ToWire(status, context.getResults().initStatus());
    return kj::READY_NOW;
  }
  std::vector<double> importance;
  for (const double x : params.getImportance()) importance.push_back(x);
  auto expected = session_->loop().Expect<Count>(run, /*lent=*/true);
  run->Add(*view, std::move(positions), std::move(importance),
           std::move(expected.done));
  return expected.promise.then([context](Count count) mutable {
    auto results = context.getResults();
    ToWire(count.status(), results.initStatus());
    if (!count.ok()) return;
    results.setTokens(static_cast<uint32_t>(count->tokens));
    results.setTokensMin(static_cast<uint32_t>(count->tokens_min));
  });
}

kj::Promise<void> CalibrationRunServer::finish(FinishContext context) {
  context.allowCancellation();
  auto before = kj::mv(turn_);
  turn_ = kj::READY_NOW;
  // Adds that come from now on find no run, so none is beside the end of it.
  return before.then([this, context, run = std::exchange(run_, nullptr)] {
    return FinishNow(context, run);
  });
}

kj::Promise<void> CalibrationRunServer::FinishNow(FinishContext context,
                                                  const Run& run) {
  if (absl::Status s = CheckOpen(run); !s.ok()) {
    ToWire(s, context.getResults().initStatus());
    return kj::READY_NOW;
  }
  const auto params = context.getParams();
  delivery::CalibrationChoice choice;
  choice.base_bits = params.getBaseBits();
  for (const double weight : params.getWeights()) {
    choice.weights.push_back(weight);
  }
  if (!(choice.base_bits >= 0.2 && choice.base_bits <= 2.8)) {
    ToWire(absl::InvalidArgumentError("baseBits, expected 0.2 to 2.8"),
           context.getResults().initStatus());
    return kj::READY_NOW;
  }
  using Receipt = absl::StatusOr<CalibrationReceipt>;
  auto expected = session_->loop().Expect<Receipt>(run);
  run->Finish(std::move(choice), deadline_.of_node, std::move(expected.done));
  return ByDeadline(session_->loop(), kj::mv(expected.promise), deadline_.at,
                    "making a calibration")
      .then([context](const Receipt& receipt) mutable {
        ToWire(receipt, context.getResults());
      });
}

}  // namespace kdn::rpc
