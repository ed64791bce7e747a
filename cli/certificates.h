#ifndef KDN_CLI_CERTIFICATES_H_
#define KDN_CLI_CERTIFICATES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/config.h"

namespace kdn::cli {

struct CertificateOptions {
  std::string directory;
  absl::Duration lifetime =
      absl::Hours(24 * 730);       // of the nodes' certificates
  bool renew = false;              // replace the certificates that are there
  std::vector<std::string> hosts;  // further names in every certificate
};

// A certificate in the directory.
struct CertificateState {
  std::string name;  // of the node, or of the authority
  std::string certificate;
  std::string key;
  bool written = false;  // false: the files were there before
  absl::Time end;        // unset if there is a problem
  // Why a node or an engine would refuse the certificate; empty if none would.
  std::string problem;
};

struct CertificateReport {
  CertificateState authority;
  std::vector<CertificateState> nodes;  // in the order of the configuration
};

// The names and addresses that a node's certificate has besides the node's own
// name: where peers and engines dial the node, the loopback addresses, and
// `hosts`.
std::vector<std::string> HostsOf(const NodeConfig& node,
                                 const std::vector<std::string>& hosts);

// Makes the directory, and an authority in it if there is none: ca.pem and
// ca.key. Then makes NODE.pem and NODE.key for each node of the configuration
// that has none, or for each node with `renew`. An authority is never replaced.
// Each file appears whole or not at all. The directory gets mode 0700 if it is
// new, and keys get mode 0600.
// INVALID_ARGUMENT for a name that cannot be in a certificate.
// FAILED_PRECONDITION if one file of a pair is there without the other, if the
// authority's key is missing or if the authority has ended. UNAVAILABLE if a
// file cannot be written, or if another process makes certificates in the
// directory. After an error, the pairs that are already written stay.
absl::StatusOr<CertificateReport> MakeCertificates(
    const ClusterConfig& config, const CertificateOptions& options,
    absl::Time now);

}  // namespace kdn::cli

#endif  // KDN_CLI_CERTIFICATES_H_
