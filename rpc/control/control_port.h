#ifndef KDN_RPC_CONTROL_CONTROL_PORT_H_
#define KDN_RPC_CONTROL_CONTROL_PORT_H_

#include <cstddef>
#include <memory>

#include "absl/time/time.h"
#include "delivery/control_network.h"
#include "kv/meters.h"
#include "rpc/tls/credentials.h"

namespace kdn::rpc {

// The control port of a node, and the connections of the node to other control
// ports. Bytes of a connection reach the node only after the TLS handshake, if
// there is TLS. The destructor closes the port. Thread-safe.
class ControlPort : public delivery::ControlNetwork {
 public:
  struct Options {
    // Null: connections are in plaintext.
    std::shared_ptr<const TlsCredentials> tls;
    // Of peers, in all, and of those that have not introduced themselves.
    size_t connections_max = 512;
    size_t silent_max = 128;
    // For the handshake and the introduction of a peer that connects.
    absl::Duration greeting_timeout = absl::Seconds(10);
    std::shared_ptr<Meters> meters = std::make_shared<Meters>();
  };

  // REQUIRES: the port outlives all its streams.
  static std::unique_ptr<ControlPort> Create(Options options);

  // Connections of peers that are open.
  virtual size_t connections() const = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_CONTROL_CONTROL_PORT_H_
