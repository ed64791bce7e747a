#ifndef KDN_RPC_CLIENT_WIRE_H_
#define KDN_RPC_CLIENT_WIRE_H_

#include <vector>

#include "absl/status/status.h"
#include "rpc/api.h"
#include "rpc/kdn.capnp.h"

// Between kdn.capnp's structs and api.h's, for the client. An answer that makes
// no sense is DATA_LOSS: the gateway is not what it says it is.
namespace kdn::rpc {

NodeInfo FromWire(wire::NodeInfo::Reader info);
NodeStatus FromWire(wire::NodeStatus::Reader status);
LookupResult FromWire(wire::LookupResult::Reader result);
ChunkOutcome FromWire(wire::ChunkOutcome::Reader outcome);
absl::StatusOr<StoreReceipt> FromWire(wire::StoreReceipt::Reader receipt);
void ToWire(const StoreSpec& spec, wire::StoreRequest::Builder out);

// DATA_LOSS unless the gateway answered for each of `asked` chunks.
absl::Status CheckCount(size_t answered, size_t asked);

}  // namespace kdn::rpc

#endif  // KDN_RPC_CLIENT_WIRE_H_
