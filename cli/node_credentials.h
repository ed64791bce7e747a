#ifndef KDN_CLI_NODE_CREDENTIALS_H_
#define KDN_CLI_NODE_CREDENTIALS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/config.h"
#include "rpc/tls/credentials.h"

namespace kdn::cli {

// The credentials of the node; null where the configuration names no
// certificates. Errors are those of TlsCredentials::Load, and INVALID_ARGUMENT
// for the certificate of another node.
absl::StatusOr<std::shared_ptr<const rpc::TlsCredentials>> LoadCredentials(
    const ClusterConfig& config, const NodeConfig& self, absl::Time now);

// What the log says of a certificate that ends within 30 days of `now`; empty
// for a certificate that ends later.
std::string ExpiryWarning(const std::string& path, absl::Time end,
                          absl::Time now);

}  // namespace kdn::cli

#endif  // KDN_CLI_NODE_CREDENTIALS_H_
