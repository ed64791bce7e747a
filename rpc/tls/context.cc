#include "rpc/tls/context.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "rpc/tls/openssl.h"
#include "rpc/tls/pem_file.h"

namespace kdn::rpc {
namespace {

// An error of the file of authorities, naming it.
absl::Status OfCa(const absl::Status& status, const std::string& named) {
  return absl::Status(status.code(),
                      absl::StrCat("ca ", named, status.message()));
}

}  // namespace

SslContext GatewayContext(const TlsCredentials& credentials) {
  SslContext context = credentials.NewSslContext();
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  return context;
}

absl::StatusOr<SslContext> EngineContext(const std::string& ca) {
  const absl::StatusOr<std::string> text =
      ReadPemFile(ca, FileAccess::kAnybody);
  if (!text.ok()) return OfCa(text.status(), "");
  const absl::StatusOr<std::vector<Owned<X509>>> authorities =
      ParseCertificates(*text);
  if (!authorities.ok()) return OfCa(authorities.status(), ca + ": ");
  SslContext context(SSL_CTX_new(TLS_method()), SSL_CTX_free);
  KDN_CHECK(context != nullptr, "OpenSSL has no memory");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  for (const Owned<X509>& authority : *authorities) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), authority.get());
  }
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  return context;
}

}  // namespace kdn::rpc
