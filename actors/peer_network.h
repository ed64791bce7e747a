#ifndef KDN_ACTORS_PEER_NETWORK_H_
#define KDN_ACTORS_PEER_NETWORK_H_

#include <cstddef>
#include <cstdint>
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
// A connection on which more bytes wait to be sent is closed.
inline constexpr size_t kControlUnsentMax = 128u << 20;

// Opens the control port: peers that connect to it find `node`. Errors as
// ControlNetwork::Listen. REQUIRES: the network is closed before the actor
// system ends.
absl::Status OpenControlPort(caf::actor_system& system,
                             delivery::ControlNetwork& network,
                             const std::string& address, uint16_t port,
                             const NodeActor& node);

// Spawns the actor that connects to control ports of peers.
ConnectorActor SpawnConnector(caf::actor_system& system,
                              delivery::ControlNetwork& network);

}  // namespace kdn::actors

#endif  // KDN_ACTORS_PEER_NETWORK_H_
