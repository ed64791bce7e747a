#ifndef KDN_RPC_TLS_OPENSSL_H_
#define KDN_RPC_TLS_OPENSSL_H_

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

// OpenSSL's objects with owners, and PEM texts.
namespace kdn::rpc {

struct OpensslFree {
  void operator()(ASN1_STRING* object) const { ASN1_STRING_free(object); }
  void operator()(BIO* object) const { BIO_free(object); }
  void operator()(EVP_PKEY* object) const { EVP_PKEY_free(object); }
  void operator()(GENERAL_NAMES* object) const { GENERAL_NAMES_free(object); }
  void operator()(SSL_CTX* object) const { SSL_CTX_free(object); }
  void operator()(X509* object) const { X509_free(object); }
  void operator()(X509_STORE* object) const { X509_STORE_free(object); }
  void operator()(X509_STORE_CTX* object) const { X509_STORE_CTX_free(object); }
};
template <typename T>
using Owned = std::unique_ptr<T, OpensslFree>;

// The reason of this thread's last failure in OpenSSL. Forgets it and all
// failures before it.
std::string TakeOpensslError();

// What is wrong with the other side's certificate: the result of
// SSL_get_verify_result in words. `host` is the name that it should have.
std::string CertificateProblem(long verdict,  // NOLINT(google-runtime-int)
                               const std::string& host);

// All certificates of a PEM text, in their order. INVALID_ARGUMENT if the text
// has none, or a damaged one.
absl::StatusOr<std::vector<Owned<X509>>> ParseCertificates(
    absl::string_view pem);
// INVALID_ARGUMENT if the text has no private key, or if a passphrase protects
// the key.
absl::StatusOr<Owned<EVP_PKEY>> ParseKey(absl::string_view pem);

std::string ToPem(X509& certificate);
// PKCS #8, without a passphrase.
std::string ToPem(EVP_PKEY& key);

// The first common name; empty if there is none or if it has a NUL.
std::string CommonNameOf(const X509& certificate);
// When the certificate begins and ends to be valid; InfinitePast for a time
// that is malformed.
absl::Time BeginOf(const X509& certificate);
absl::Time EndOf(const X509& certificate);

}  // namespace kdn::rpc

#endif  // KDN_RPC_TLS_OPENSSL_H_
