#ifndef KDN_CLI_CONNECT_H_
#define KDN_CLI_CONNECT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/client/client.h"

namespace kdn::cli {

// rpc::Client::Connect with an error for people: it says what to do.
absl::StatusOr<std::unique_ptr<rpc::Client>> ConnectTo(
    const std::string& address);

}  // namespace kdn::cli

#endif  // KDN_CLI_CONNECT_H_
