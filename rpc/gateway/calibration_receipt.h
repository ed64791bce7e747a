#ifndef KDN_RPC_GATEWAY_CALIBRATION_RECEIPT_H_
#define KDN_RPC_GATEWAY_CALIBRATION_RECEIPT_H_

#include "absl/status/statusor.h"
#include "kv/answers.h"
#include "kv/log.h"
#include "rpc/gateway/wire.h"
#include "rpc/wire.h"

namespace kdn::rpc {

// Writes the answer of a call that stores a calibration: status, id and nodes.
template <typename Results>
void ToWire(const absl::StatusOr<CalibrationReceipt>& receipt,
            Results results) {
  ToWire(receipt.status(), results.initStatus());
  if (!receipt.ok()) {
    LogWarning("gateway.calibration", receipt.status().ToString());
    return;
  }
  results.setId(ToWire(receipt->id));
  auto nodes =
      results.initNodes(static_cast<unsigned>(receipt->holders.size()));
  for (unsigned i = 0; i < nodes.size(); ++i) {
    nodes.set(i, receipt->holders[i].name());
  }
}

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_CALIBRATION_RECEIPT_H_
