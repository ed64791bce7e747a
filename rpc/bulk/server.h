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

namespace kdn::rpc {

// Serves this node's encoded objects to other nodes over plain TCP
// (docs/protocol.md, "Between nodes") on one event loop thread of its own.
// Object bytes are gather-written straight from the arena, pushes are read
// straight into it. Thread-safe.
//
// Invariants: bytes from a peer are bounded before they are believed, nonsense
// costs the peer its connection and nothing else; an object being sent is held
// by reference until its last byte is in the socket.
class BulkServer {
 public:
  struct Options {
    NodeId self;
    Introduce introduce = nullptr;  // unset: by name only
    std::string host = "127.0.0.1";
    uint16_t port = 0;  // 0: any free one, see port()
    // Nine per peer at most: see BulkTransport.
    int connections_max = 1024;
    int items_per_fetch_max = delivery::kItemsPerFetchMax;
    uint64_t push_bytes_max = 4ull << 30;
    // A peer that takes or gives not one byte for this long is hung up on.
    absl::Duration stall_timeout = absl::Seconds(10);
    // Counted into; a node's transport counts into the same.
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
  // Hangs up and joins. Idempotent; the destructor does it too.
  virtual void Stop() = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_SERVER_H_
