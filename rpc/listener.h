#ifndef KDN_RPC_LISTENER_H_
#define KDN_RPC_LISTENER_H_

#include <kj/async-io.h>

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// Opens a listening TCP socket. ALREADY_EXISTS naming the address when it is in
// use, INVALID_ARGUMENT when it is none of this host's. Resolves names, so it
// may block.
absl::StatusOr<int> ListenTcp(const std::string& host, uint16_t port);
// The same on a Unix socket of mode 0600. A socket file that nobody listens on
// is replaced; anything else at `path` is ALREADY_EXISTS.
absl::StatusOr<int> ListenUnix(const std::string& path);
// The port a listening socket got.
uint16_t PortOf(int fd);

// Accepts connections for as long as the promise lives; each goes to
// `on_stream`. Out of descriptors, it waits and goes on. Loop thread only.
kj::Promise<void> AcceptAll(
    EventLoop& loop, int listening_fd,
    std::function<void(kj::Own<kj::AsyncIoStream>)> on_stream);

// No Nagle; a send buffer of 1 MB, so that a connection carries 1 MB a round
// trip (docs/operations.md). The receive buffer stays the kernel's to tune.
void TuneTcp(kj::AsyncIoStream& stream);

}  // namespace kdn::rpc

#endif  // KDN_RPC_LISTENER_H_
