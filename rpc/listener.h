#ifndef KDN_RPC_LISTENER_H_
#define KDN_RPC_LISTENER_H_

#include <kj/async-io.h>

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// Opens a listening TCP socket. ALREADY_EXISTS when the address is in use,
// INVALID_ARGUMENT when it is not an address of this host; both errors name the
// address. Resolves names, so it may block.
absl::StatusOr<int> ListenTcp(const std::string& host, uint16_t port);
// The address of a host as a number, IPv4 if it has one. INVALID_ARGUMENT,
// naming the host, when it has none. May block.
absl::StatusOr<std::string> NumericAddress(const std::string& host);
// Whether a numeric address is one that only this machine reaches.
bool IsLoopback(const std::string& numeric);

// Who may open a Unix socket.
struct SocketAccess {
  uint32_t mode = 0600;
  std::string group;  // empty: the group of this process
};
// Opens a listening Unix socket. Replaces a socket file that no process listens
// on; any other file at `path` is ALREADY_EXISTS. INVALID_ARGUMENT for a group
// that does not exist, or that this process may not give the socket to.
absl::StatusOr<int> ListenUnix(const std::string& path,
                               const SocketAccess& access = {});
// The port of a listening TCP socket; 0 on failure.
uint16_t PortOf(int fd);

// Connects to "host:port", "[IPv6]:port" or "unix:/path".
kj::Promise<kj::Own<kj::AsyncIoStream>> DialAddress(kj::Network& network,
                                                    const std::string& address);

// Accepts connections while the promise lives, and calls `on_stream` with each.
// Takes ownership of the descriptor. While the process or the system has no
// file descriptor or memory left, it logs the error, hangs up on the clients
// that wait, and goes on as soon as it can. Any other failure means that the
// socket is broken: the process ends, because nobody would notice a node that
// does not listen. The promise never resolves. Loop thread only.
kj::Promise<void> AcceptAll(
    EventLoop& loop, int listening_fd,
    std::function<void(kj::Own<kj::AsyncIoStream>)> on_stream);

// Names the host at the other end of a TCP connection, for a ConnectionTable.
// Of IPv6 it takes the first half of the address, because one host may have all
// the addresses that begin with it. Not for people to read.
std::string PeerOf(kj::AsyncIoStream& stream);

// Sets the options of a TCP connection: no Nagle, keepalive, and a send buffer
// of 1 MB, so that a connection carries 1 MB per round trip
// (docs/operations.md). The kernel tunes the receive buffer.
void TuneTcp(kj::AsyncIoStream& stream);

}  // namespace kdn::rpc

#endif  // KDN_RPC_LISTENER_H_
