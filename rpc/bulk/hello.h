#ifndef KDN_RPC_BULK_HELLO_H_
#define KDN_RPC_BULK_HELLO_H_

#include <functional>

#include "absl/status/statusor.h"
#include "kv/ids.h"
#include "placement/introduction.h"
#include "rpc/peer.capnp.h"

namespace kdn::rpc {

// What this node says to a peer. Called on any thread.
using Introduce = std::function<placement::Introduction(const NodeId& peer)>;

// The introduction of a node that knows its name and nothing of its cluster.
Introduce IntroduceByNameOnly(NodeId self);

void ToWire(const placement::Introduction& introduction,
            peer::Introduction::Builder out);

// INVALID_ARGUMENT for values that no node has: no name, a weight that is not
// finite and positive, an oldest version above the newest.
absl::StatusOr<placement::Introduction> FromWire(
    peer::Introduction::Reader introduction);

// May `ours` exchange data with the node that says `hello`?
// FAILED_PRECONDITION, naming both nodes and what differs, or INVALID_ARGUMENT.
absl::Status JudgeHello(const placement::Introduction& ours,
                        peer::Hello::Reader hello);

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_HELLO_H_
