#ifndef KDN_RPC_GATEWAY_CALIBRATION_UPLOAD_H_
#define KDN_RPC_GATEWAY_CALIBRATION_UPLOAD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// A calibration that an engine sends in parts. The bytes lie here until commit;
// they are charged when the upload begins. At the deadline the upload gives
// them back, whatever the client does. Loop thread only.
class CalibrationUploadServer final : public wire::CalibrationUpload::Server {
 public:
  struct Budget {
    AdmissionGate::Pass in_session;
    AdmissionGate::Pass in_gateway;
  };
  CalibrationUploadServer(std::shared_ptr<SessionState> session, uint64_t bytes,
                          CallDeadline deadline, Budget budget)
      : session_(std::move(session)),
        expected_(bytes),
        deadline_(deadline),
        budget_(std::move(budget)),
        expiry_(session_->loop()
                    .At(deadline.at)
                    .then([this] { Expire(); })
                    .eagerlyEvaluate(nullptr)) {}

  kj::Promise<void> part(PartContext context) override;
  kj::Promise<void> commit(CommitContext context) override;

 private:
  absl::Status Append(capnp::Data::Reader part);
  absl::Status CheckWhole() const;
  void Expire();

  const std::shared_ptr<SessionState> session_;
  const uint64_t expected_;
  const CallDeadline deadline_;
  Budget budget_;
  std::vector<std::byte> bytes_;
  bool over_ = false;  // committed, or past the deadline
  bool committed_ = false;
  kj::Promise<void> expiry_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_CALIBRATION_UPLOAD_H_
