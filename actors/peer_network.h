#ifndef KDN_ACTORS_PEER_NETWORK_H_
#define KDN_ACTORS_PEER_NETWORK_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "actors/messages.h"
#include "delivery/control_network.h"

// CAF's protocol over the connections of a delivery::ControlNetwork. CAF's own
// sockets would let anybody connect, and CAF 0.17 allocates what a header
// announces and crashes on a handshake without a payload.
namespace kdn::actors {

// The most bytes of one message from another node, and of the message with
// which a node introduces itself. A connection that announces more is closed.
inline constexpr size_t kControlMessageMax = 64u << 20;
inline constexpr size_t kControlGreetingMax = 64u << 10;
// Messages of more than kControlGreetingMax bytes that are being received at
// the same time have this many bytes together. A connection that announces more
// is closed.
inline constexpr uint64_t kControlReceivingMax = 256u << 20;
// A connection on which more bytes wait to be sent is closed.
inline constexpr size_t kControlUnsentMax = 128u << 20;

// The connections of CAF to the control ports of peers, and of peers to ours.
// Thread-compatible.
class PeerNetwork {
 public:
  // Spawns the connector. REQUIRES: both outlive the PeerNetwork, and the
  // network is closed before the actor system ends.
  PeerNetwork(caf::actor_system& system, delivery::ControlNetwork& network);

  // Opens the control port: peers that connect to it find `node`. Errors as
  // ControlNetwork::Listen.
  absl::Status Listen(const std::string& address, uint16_t port,
                      const NodeActor& node);
  // The actor that connects to control ports of peers.
  const ConnectorActor& connector() const { return connector_; }

  // What all connections share.
  struct Shared {
    std::atomic<int64_t> next_handle{1};
    std::atomic<uint64_t> receiving{0};  // bytes of large messages
  };

 private:
  caf::actor_system& system_;
  delivery::ControlNetwork& network_;
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  ConnectorActor connector_;
};

}  // namespace kdn::actors

#endif  // KDN_ACTORS_PEER_NETWORK_H_
