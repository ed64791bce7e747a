#ifndef KDN_RPC_BULK_SERVER_H_
#define KDN_RPC_BULK_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/peer_transport.h"
#include "kv/ids.h"
#include "kv/meters.h"
#include "rpc/bulk/hello.h"
#include "rpc/tls/credentials.h"

namespace kdn::rpc {

// Serves this node's encoded objects to other nodes, over TCP with or without
// TLS (docs/protocol.md, "Between nodes"). It has one event loop thread of its
// own. Objects are written straight from the arena with gather writes, and
// pushes are read straight into the arena. Thread-safe.
//
// Invariants: sizes that a peer sends are checked before they are used. A
// malformed message ends the peer's connection and has no other effect. An
// object is held by reference until its last byte is in the socket.
class BulkServer {
 public:
  struct Options {
    NodeId self;
    Introduce introduce = nullptr;  // null: IntroduceByNameOnly
    std::string host = "127.0.0.1";
    uint16_t port = 0;  // 0: any free port, see port()
    // When the server or a peer has its most, an idle connection makes room for
    // a new one: the peer's pool opens another one when it needs it.
    int connections_max = 1024;
    // A peer opens at most nine (see BulkTransport); connections that it has
    // lost may still be open here.
    int connections_per_peer_max = 32;
    int items_per_fetch_max = delivery::kItemsPerFetchMax;
    uint64_t push_bytes_max = 4ull << 30;
    // Most bytes of announced pushes for which memory is taken and which have
    // not come, in all: other objects are evicted for them. One peer may have
    // half, and a larger push counts as half. Further pushes wait.
    uint64_t push_unreceived_max = 256u << 20;
    // The server hangs up on a peer that has not begun to send so long after it
    // was told to.
    absl::Duration push_begin_timeout = absl::Seconds(2);
    // This node's certificate. A peer must show one too, and the common name
    // of that one must be the name that the peer says in its hello. Null:
    // connections are plaintext.
    std::shared_ptr<const TlsCredentials> tls = nullptr;
    // The server hangs up on a peer when a block that the peer should take or
    // send takes longer than this, and when the handshake of TLS and the hello
    // together do.
    absl::Duration stall_timeout = absl::Seconds(10);
    // The server counts bytes and refusals here. The server and the transport
    // of a node share it.
    std::shared_ptr<Meters> meters = std::make_shared<Meters>();
  };

  struct Counters {
    uint64_t connections = 0;  // open now
  };

  // ALREADY_EXISTS when the port is in use. `service` must outlive the server.
  static absl::StatusOr<std::unique_ptr<BulkServer>> Start(
      Options options, delivery::PeerService* service);
  virtual ~BulkServer() = default;

  virtual uint16_t port() const = 0;
  virtual Counters counters() const = 0;
  // Hangs up on every peer. Idempotent; the destructor calls it.
  virtual void Stop() = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_SERVER_H_
