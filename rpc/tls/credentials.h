#ifndef KDN_RPC_TLS_CREDENTIALS_H_
#define KDN_RPC_TLS_CREDENTIALS_H_

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "rpc/tls/files.h"

namespace kdn::rpc {

// What a node proves its name with, and whom it trusts. The common name of a
// node's certificate is the node's name, and one of its DNS names is too.
// Immutable and thread-safe.
class TlsCredentials {
 public:
  // NOT_FOUND for a file that does not exist. PERMISSION_DENIED for a file that
  // cannot be read, and for a key that every user of the machine may read or
  // write. INVALID_ARGUMENT for a file that is not PEM, a key that is not the
  // certificate's, a certificate without the names above, a certificate that
  // `ca` has not signed or that may not serve both ends of a connection, or one
  // that is not valid at `now`. Every error names the file and the remedy.
  static absl::StatusOr<std::shared_ptr<const TlsCredentials>> Load(
      const TlsFiles& files, absl::Time now);

  // The common name of the certificate.
  const std::string& name() const { return name_; }
  // When the first certificate of the chain up to the authority ends.
  absl::Time expires() const { return expires_; }

  // A context for both ends of connections between nodes. Each side must show
  // a certificate that `ca` has signed. TLS 1.2 or newer, without
  // renegotiation.
  using SslContext = std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)>;
  SslContext NewSslContext() const;

 private:
  TlsCredentials() = default;
  // Null, with OpenSSL's reason in its queue of errors, if OpenSSL takes a
  // certificate or the key for too weak.
  SslContext TryNewSslContext() const;

  std::vector<std::string> authorities_;  // one certificate each, in PEM
  std::string certificate_;               // the chain, in PEM
  std::string key_;                       // in PEM
  std::string name_;
  absl::Time expires_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_TLS_CREDENTIALS_H_
