#ifndef KDN_RPC_GATEWAY_WIRE_H_
#define KDN_RPC_GATEWAY_WIRE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "delivery/node_service.h"
#include "kv/chunk_key.h"
#include "kv/model_spec.h"
#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

// Converts between the structs of kdn.capnp and those of delivery/, for the
// gateway.
namespace kdn::rpc {

void FillNodeInfo(const GatewayState& gateway, bool local,
                  wire::NodeInfo::Builder out);
void FillNodeStatus(const NodeStatus& status, wire::NodeStatus::Builder out);
void FillCalibration(const CalibrationEntry& entry,
                     wire::Calibration::Builder out);
void FillLookupResult(const LookupResult& result,
                      wire::LookupResult::Builder out);
void FillOutcome(const ChunkOutcome& outcome, wire::ChunkOutcome::Builder out);
void FillReceipt(const StoreReceipt& receipt, wire::StoreReceipt::Builder out);

// The checked fields of a store, without its deadline. INVALID_ARGUMENT when
// the key is not the one that this node computes, or a field is not valid;
// UNIMPLEMENTED for a level or a durability that this node does not know.
absl::StatusOr<delivery::StoreRequest> StoreFromWire(
    wire::StoreRequest::Reader request, std::shared_ptr<const ModelSpec> model,
    const ModelFingerprint& fingerprint, const Namespace& ns);

// A time to live. INVALID_ARGUMENT unless `ttl_ms` is 1 ms to 30 days, or 0 and
// `zero_allowed`.
absl::StatusOr<absl::Duration> TtlFromWire(uint64_t ttl_ms, bool zero_allowed);

// INVALID_ARGUMENT unless a chunk has 1 to kChunkTokensMax positions.
absl::Status CheckPositionCount(uint64_t count);
// INVALID_ARGUMENT unless there are 1 to kChunkTokensMax positions, none of
// them negative.
absl::Status CheckPositions(const std::vector<int32_t>& positions);

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_WIRE_H_
