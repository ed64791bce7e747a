#ifndef KDN_RPC_TLS_CREDENTIALS_H_
#define KDN_RPC_TLS_CREDENTIALS_H_

#include <kj/compat/tls.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kdn::rpc {

// Paths of PEM files.
struct TlsFiles {
  std::string ca;           // certificates of the authorities to trust
  std::string certificate;  // own certificate, and the chain up to the authority
  std::string key;          // private key of `certificate`
};

// What a node proves its name with, and whom it trusts. The common name of a
// node's certificate is the node's name, and one of its DNS names is too.
// Immutable and thread-safe.
class TlsCredentials {
 public:
  // NOT_FOUND or PERMISSION_DENIED for a file that cannot be read;
  // INVALID_ARGUMENT, naming the file, for a file that is not PEM, a key that
  // is not the certificate's, a certificate that `ca` has not signed, or one
  // that is not valid at `now`.
  static absl::StatusOr<std::shared_ptr<const TlsCredentials>> Load(
      const TlsFiles& files, absl::Time now);

  // The common name of the certificate.
  const std::string& name() const { return name_; }
  absl::Time expires() const { return expires_; }

  // A context for both ends of connections between nodes. Each side must show
  // a certificate that `ca` has signed. TLS 1.2 or newer.
  kj::Own<kj::TlsContext> NewPeerContext() const;
  // A context for the server's end of connections of engines, which show no
  // certificate.
  kj::Own<kj::TlsContext> NewGatewayContext() const;
  // The same as NewPeerContext, for code that calls OpenSSL itself.
  using SslContext = std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)>;
  SslContext NewSslContext() const;

 private:
  TlsCredentials() = default;
  std::string ca_;  // the texts of the files
  std::string certificate_;
  std::string key_;
  std::string name_;
  absl::Time expires_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_TLS_CREDENTIALS_H_
