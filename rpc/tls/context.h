#ifndef KDN_RPC_TLS_CONTEXT_H_
#define KDN_RPC_TLS_CONTEXT_H_

#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/tls/credentials.h"

namespace kdn::rpc {

using SslContext = TlsCredentials::SslContext;

// The context of a gateway: it shows the node's certificate, and engines show
// none.
SslContext GatewayContext(const TlsCredentials& credentials);

// The context of an engine: it trusts the authorities in the file `ca` and no
// others, and shows no certificate. TLS 1.2 or newer. NOT_FOUND,
// PERMISSION_DENIED or INVALID_ARGUMENT, naming the file.
absl::StatusOr<SslContext> EngineContext(const std::string& ca);

}  // namespace kdn::rpc

#endif  // KDN_RPC_TLS_CONTEXT_H_
