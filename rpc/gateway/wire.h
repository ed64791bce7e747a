#ifndef KDN_RPC_GATEWAY_WIRE_H_
#define KDN_RPC_GATEWAY_WIRE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "delivery/node_service.h"
#include "kv/chunk_key.h"
#include "kv/model_spec.h"
#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

// Between kdn.capnp's structs and delivery/'s, for the gateway.
namespace kdn::rpc {

void FillNodeInfo(const GatewayState& gateway, bool local,
                  wire::NodeInfo::Builder out);
void FillNodeStatus(const NodeStatus& status, wire::NodeStatus::Builder out);
void FillLookupResult(const LookupResult& result,
                      wire::LookupResult::Builder out);
void FillOutcome(const ChunkOutcome& outcome, wire::ChunkOutcome::Builder out);
void FillReceipt(const StoreReceipt& receipt, wire::StoreReceipt::Builder out);

// Everything of a store but its deadline, checked: the key is the one this node
// computes, positions and levels make sense. INVALID_ARGUMENT otherwise.
absl::StatusOr<delivery::StoreRequest> StoreFromWire(
    wire::StoreRequest::Reader request, std::shared_ptr<const ModelSpec> model,
    const ModelFingerprint& fingerprint, const Namespace& ns);

// INVALID_ARGUMENT unless 1 ms to 30 days, or 0 where `zero_allowed`.
absl::StatusOr<absl::Duration> TtlFromWire(uint64_t ttl_ms, bool zero_allowed);

// INVALID_ARGUMENT unless there are 1 to kChunkTokensMax, none negative.
absl::Status CheckPositions(const std::vector<int32_t>& positions);

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_WIRE_H_
