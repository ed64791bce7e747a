#ifndef KDN_RPC_BULK_HELLO_H_
#define KDN_RPC_BULK_HELLO_H_

#include <functional>

#include "absl/status/statusor.h"
#include "kv/ids.h"
#include "placement/introduction.h"
#include "rpc/peer.capnp.h"

namespace kdn::rpc {

// Gives the introduction of this node to a peer. Called on any thread.
using Introduce = std::function<placement::Introduction(const NodeId& peer)>;

// Introductions with the node's name and versions, and nothing about the
// cluster.
Introduce IntroduceByNameOnly(NodeId self);

void ToWire(const placement::Introduction& introduction,
            peer::Introduction::Builder out);

// INVALID_ARGUMENT for values that no node can have: an empty name, a weight
// that is not finite and positive, an oldest version above the newest.
absl::StatusOr<placement::Introduction> FromWire(
    peer::Introduction::Reader introduction);

// OK when `ours` may exchange data with the node that sent `hello`.
// FAILED_PRECONDITION, naming both nodes and the difference, when the
// introductions do not fit; INVALID_ARGUMENT when the hello is not valid.
absl::Status JudgeHello(const placement::Introduction& ours,
                        peer::Hello::Reader hello);

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_HELLO_H_
