#ifndef KDN_RPC_GATEWAY_CALIBRATION_RUN_H_
#define KDN_RPC_GATEWAY_CALIBRATION_RUN_H_

#include <memory>
#include <utility>

#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// A calibration that a node makes of an engine's KV. The node reads the KV
// where it lies, in the request message, so an add is answered only when the
// node is done with it, even after the deadline. At the deadline the run is
// given up, whatever the client does. Loop thread only.
class CalibrationRunServer final : public wire::CalibrationRun::Server {
 public:
  CalibrationRunServer(std::shared_ptr<SessionState> session,
                       std::shared_ptr<const ModelSpec> model,
                       std::unique_ptr<delivery::CalibrationRun> run,
                       CallDeadline deadline)
      : session_(std::move(session)),
        model_(std::move(model)),
        run_(std::move(run)),
        deadline_(deadline),
        turn_(kj::READY_NOW),
        expiry_(session_->loop()
                    .At(deadline.at)
                    .then([this] { run_ = nullptr; })
                    .eagerlyEvaluate(nullptr)) {}

  kj::Promise<void> add(AddContext context) override;
  kj::Promise<void> finish(FinishContext context) override;

 private:
  using Run = std::shared_ptr<delivery::CalibrationRun>;

  kj::Promise<void> AddNow(AddContext context, const Run& run);
  kj::Promise<void> FinishNow(FinishContext context, const Run& run);
  absl::Status CheckOpen(const Run& run) const;
  // The KV of a call. INVALID_ARGUMENT when it does not lie inside its message.
  absl::StatusOr<KvView> ViewOf(
      wire::CalibrationRun::AddParams::Reader params) const;

  const std::shared_ptr<SessionState> session_;
  const std::shared_ptr<const ModelSpec> model_;
  Run run_;  // calls in progress share it; null once it is over
  const CallDeadline deadline_;
  kj::Promise<void> turn_;  // the end of the last call
  kj::Promise<void> expiry_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_CALIBRATION_RUN_H_
