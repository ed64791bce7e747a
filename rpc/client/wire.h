#ifndef KDN_RPC_CLIENT_WIRE_H_
#define KDN_RPC_CLIENT_WIRE_H_

#include <vector>

#include "absl/status/status.h"
#include "rpc/api.h"
#include "rpc/kdn.capnp.h"

// Converts between the structs of kdn.capnp and the values of api.h, for the
// client. An answer that is not valid is DATA_LOSS.
namespace kdn::rpc {

NodeInfo FromWire(wire::NodeInfo::Reader info);
NodeStatus FromWire(wire::NodeStatus::Reader status);
LookupResult FromWire(wire::LookupResult::Reader result);
ChunkOutcome FromWire(wire::ChunkOutcome::Reader outcome);
absl::StatusOr<CalibrationEntry> FromWire(
    wire::Calibration::Reader calibration);
absl::StatusOr<StoreReceipt> FromWire(wire::StoreReceipt::Reader receipt);
void ToWire(const StoreSpec& spec, wire::StoreRequest::Builder out);

// DATA_LOSS unless the gateway answered for each of `asked` chunks.
absl::Status CheckCount(size_t answered, size_t asked);

}  // namespace kdn::rpc

#endif  // KDN_RPC_CLIENT_WIRE_H_
