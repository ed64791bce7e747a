#ifndef KDN_RPC_TLS_ISSUE_H_
#define KDN_RPC_TLS_ISSUE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kdn::rpc {

// A certificate and its private key, as texts in PEM.
struct IssuedCertificate {
  std::string certificate;
  std::string key;
};

// The time in which a certificate is valid.
struct Validity {
  absl::Time begin;
  absl::Time end;
};

// Whom a certificate is for.
struct CertificateSubject {
  std::string name;                // the common name, and a DNS name
  std::vector<std::string> hosts;  // further DNS names and addresses
};

// A new authority: a key on the curve P-256, and a certificate that the key has
// signed itself. INVALID_ARGUMENT for a name that is not 1 to 64 bytes of
// printable ASCII; X.509 allows no longer one.
absl::StatusOr<IssuedCertificate> MakeAuthority(const std::string& name,
                                                Validity validity);

// A new key on the curve P-256, and a certificate for it that serves both ends
// of a connection. An address is in the certificate as an address and also as a
// DNS name, because KJ looks only at DNS names. The certificate ends when the
// authority ends, if that is before `validity` ends.
// INVALID_ARGUMENT for a name of more than 64 bytes, for a name or host that is
// empty or has a byte that is a space or not printable ASCII, and for an
// authority that is not PEM, is none, or has the key of another.
// FAILED_PRECONDITION if the authority ends before `validity` begins.
absl::StatusOr<IssuedCertificate> IssueCertificate(
    const IssuedCertificate& authority, const CertificateSubject& subject,
    Validity validity);

}  // namespace kdn::rpc

#endif  // KDN_RPC_TLS_ISSUE_H_
