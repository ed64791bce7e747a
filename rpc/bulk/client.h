#ifndef KDN_RPC_BULK_CLIENT_H_
#define KDN_RPC_BULK_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/peer_transport.h"
#include "kv/ids.h"
#include "kv/meters.h"
#include "kv/work_class.h"
#include "rpc/bulk/hello.h"
#include "rpc/tls/credentials.h"

namespace kdn::rpc {

// Fetches objects from the BulkServers of other nodes, and pushes objects to
// them. It has one event loop thread of its own. To each peer it keeps a few
// connections for each class of work; a connection carries one request at a
// time. When all connections of a class are in use, its requesters take turns
// (kdn::Admission). Bytes are read(2) straight into the memory that
// FetchSink::OnHit gives, and written straight from the object's memory.
//
// Invariants: every request ends exactly once, by its deadline. A broken or
// slow connection fails only the request on it. Callbacks run on the loop
// thread, one at a time.
class BulkTransport : public delivery::PeerTransport {
 public:
  struct Options {
    NodeId self;
    Introduce introduce = nullptr;  // null: IntroduceByNameOnly
    // Most connections to one peer, by class of work. No class uses the
    // connections of another class, so that pushes that wait for room at the
    // peer do not hold up fetches.
    PerClass<int> connections_per_peer_max = {
        .read = 4, .write = 4, .background = 1};
    // Most requests that wait for a connection, per peer and class; a further
    // request is RESOURCE_EXHAUSTED.
    int waiting_max = 1024;
    // For the connection, the handshake of TLS and the hello together.
    absl::Duration connect_timeout = absl::Seconds(1);
    // This node's certificate, which it shows to every peer. A peer must show
    // one that names the peer's node. Null: connections are plaintext.
    std::shared_ptr<const TlsCredentials> tls = nullptr;
    // Gives the "host:port" of a peer. Called on the loop thread.
    std::function<absl::StatusOr<std::string>(const NodeId&)> resolve;
    // The transport counts bytes and times here. The transport and the server
    // of a node share it.
    std::shared_ptr<Meters> meters = std::make_shared<Meters>();
  };

  static std::unique_ptr<BulkTransport> Start(Options options);

  // Fails all pending requests with UNAVAILABLE and waits for their callbacks.
  // Later requests fail at once. Idempotent; the destructor calls it.
  virtual void Stop() = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_CLIENT_H_
