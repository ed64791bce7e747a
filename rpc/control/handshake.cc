#include "rpc/control/handshake.h"

#include <openssl/x509v3.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/tls/openssl.h"

namespace kdn::rpc {
namespace {

using Observer = kj::UnixEventPort::FdObserver;

// Why one side refused the other.
std::string RefusalReason(const SSL& ssl) {
  const auto verdict = SSL_get_verify_result(&ssl);
  if (verdict != X509_V_OK) {
    ERR_clear_error();
    const char* const host =
        X509_VERIFY_PARAM_get0_host(SSL_get0_param(const_cast<SSL*>(&ssl)), 0);
    return absl::StrCat(
        "the certificate of the other side is refused: ",
        CertificateProblem(verdict,
                           host != nullptr ? host : "the dialled node"));
  }
  if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_WRONG_VERSION_NUMBER) {
    ERR_clear_error();
    return "the other side does not speak TLS";
  }
  return TakeOpensslError();
}

// Whether the certificate of the other side is that of the node. Its DNS names
// do not suffice: they have the host too, which may be the name of another
// node.
bool IsCertificateOf(const SSL& ssl, const std::string& node) {
  const Owned<X509> certificate(SSL_get1_peer_certificate(&ssl));
  return certificate != nullptr && CommonNameOf(*certificate) == node;
}

class HandshakeRun {
 public:
  HandshakeRun(EventLoop& loop, SslPtr ssl, int fd,
               std::optional<std::string> server)
      : server_(std::move(server)),
        ssl_(std::move(ssl)),
        observer_(loop.event_port(), fd,
                  Observer::OBSERVE_READ | Observer::OBSERVE_WRITE) {}

  kj::Promise<absl::StatusOr<SslPtr>> Step() {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    if (result == 1) return Finish();
    const int error = SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_WANT_READ) {
      return observer_.whenBecomesReadable().then([this] { return Step(); });
    }
    if (error == SSL_ERROR_WANT_WRITE) {
      return observer_.whenBecomesWritable().then([this] { return Step(); });
    }
    return absl::StatusOr<SslPtr>(
        SslError(*ssl_, error, "the TLS handshake failed"));
  }

 private:
  absl::StatusOr<SslPtr> Finish() {
    if (server_ && !IsCertificateOf(*ssl_, *server_)) {
      return absl::PermissionDeniedError(
          absl::StrCat("the certificate of the other side is refused: it is "
                       "not that of node ",
                       *server_));
    }
    return std::move(ssl_);
  }

  const std::optional<std::string> server_;
  SslPtr ssl_;
  Observer observer_;
};

absl::StatusOr<SslPtr> NewSsl(SSL_CTX& context, int fd,
                              const std::optional<std::string>& server) {
  SslPtr ssl(SSL_new(&context), SSL_free);
  if (ssl == nullptr || SSL_set_fd(ssl.get(), fd) != 1) {
    return absl::ResourceExhaustedError("no memory for a TLS connection");
  }
  // Our peers end a connection without a closing alert.
  SSL_set_options(ssl.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_set_mode(ssl.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (!server) {
    SSL_set_accept_state(ssl.get());
    return ssl;
  }
  SSL_set_connect_state(ssl.get());
  SSL_set_hostflags(ssl.get(), X509_CHECK_FLAG_NO_WILDCARDS |
                                   X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  if (SSL_set1_host(ssl.get(), server->c_str()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("no certificate can have the name ", *server));
  }
  return ssl;
}

}  // namespace

absl::Status SslError(const SSL& ssl, int error, const char* what) {
  if (error != SSL_ERROR_SSL) {
    const bool broke = error == SSL_ERROR_SYSCALL && errno != 0;
    return absl::UnavailableError(absl::StrCat(
        what, ": ", broke ? strerror(errno) : "the peer closed it"));
  }
  return absl::PermissionDeniedError(
      absl::StrCat(what, ": ", RefusalReason(ssl)));
}

kj::Promise<absl::StatusOr<SslPtr>> Handshake(
    EventLoop& loop, SSL_CTX& context, int fd,
    const std::optional<std::string>& server) {
  absl::StatusOr<SslPtr> ssl = NewSsl(context, fd, server);
  if (!ssl.ok()) return ssl;
  auto run = kj::heap<HandshakeRun>(loop, *std::move(ssl), fd, server);
  auto running = run->Step();
  return running.attach(kj::mv(run));
}

}  // namespace kdn::rpc
