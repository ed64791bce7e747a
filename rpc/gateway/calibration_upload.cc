#include "rpc/gateway/calibration_upload.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "rpc/gateway/calibration_receipt.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

constexpr size_t kPartBytesMax = 8u << 20;

}  // namespace

absl::Status CalibrationUploadServer::Append(capnp::Data::Reader part) {
  if (absl::Status s = session_->CheckOpen(); !s.ok()) return s;
  if (over_) {
    return absl::FailedPreconditionError(
        "the upload is over: it was committed, or its deadline passed");
  }
  if (part.size() > kPartBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a part of ", part.size(), " bytes, expected at most ", kPartBytesMax));
  }
  if (part.size() > expected_ - bytes_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the calibration has more bytes than the ", expected_,
                     " that were announced"));
  }
  const auto* begin = reinterpret_cast<const std::byte*>(part.begin());
  bytes_.insert(bytes_.end(), begin, begin + part.size());
  return absl::OkStatus();
}

kj::Promise<void> CalibrationUploadServer::part(PartContext context) {
  const absl::Status status = Append(context.getParams().getBytes());
  ToWire(status, context.getResults().initStatus());
  return kj::READY_NOW;
}

absl::Status CalibrationUploadServer::CheckWhole() const {
  if (absl::Status s = session_->CheckOpen(); !s.ok()) return s;
  if (over_) {
    return absl::FailedPreconditionError(
        "the upload is over: it was committed before, or its deadline passed");
  }
  if (bytes_.size() == expected_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("committed after ", bytes_.size(), " of ", expected_,
                   " bytes of the calibration"));
}

// No allowCancellation: the budget is held until the node has let go of the
// bytes, even if the client hangs up.
kj::Promise<void> CalibrationUploadServer::commit(CommitContext context) {
  const absl::Status status = CheckWhole();
  over_ = true;
  if (!status.ok()) {
    Expire();
    ToWire(status, context.getResults().initStatus());
    return kj::READY_NOW;
  }
  committed_ = true;
  using Receipt = absl::StatusOr<CalibrationReceipt>;
  auto expected = session_->loop().Expect<Receipt>();
  session_->node().StoreCalibration(std::move(bytes_), deadline_.of_node,
                                    std::move(expected.done));
  return ByDeadline(session_->loop(), kj::mv(expected.promise), deadline_.at,
                    "storing a calibration")
      .then([context](const Receipt& receipt) mutable {
        ToWire(receipt, context.getResults());
      });
}

void CalibrationUploadServer::Expire() {
  over_ = true;
  if (committed_) return;
  bytes_ = std::vector<std::byte>();
  budget_ = Budget{};
}

}  // namespace kdn::rpc
