#ifndef KDN_RPC_CONTROL_HANDSHAKE_H_
#define KDN_RPC_CONTROL_HANDSHAKE_H_

#include <kj/async.h>
#include <kj/io.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/control/stream.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// The status of a call on `ssl` that failed. `error` is of SSL_get_error, and
// the message begins with `what`. PERMISSION_DENIED when one side refused the
// other, UNAVAILABLE when the connection ended.
absl::Status SslError(const SSL& ssl, int error, const char* what);

// Performs the TLS handshake on a connected, non-blocking socket. With `server`
// as the name of the node that was dialled, this is the client's side, and the
// peer's certificate must have that name as its common name and among its DNS
// names. PERMISSION_DENIED when the peer
// does not prove its name; UNAVAILABLE when the connection ends. The caller
// bounds the time. REQUIRES: `fd` outlives the promise and its value.
kj::Promise<absl::StatusOr<SslPtr>> Handshake(
    EventLoop& loop, SSL_CTX& context, int fd,
    const std::optional<std::string>& server);

}  // namespace kdn::rpc

#endif  // KDN_RPC_CONTROL_HANDSHAKE_H_
