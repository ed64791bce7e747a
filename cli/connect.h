#ifndef KDN_CLI_CONNECT_H_
#define KDN_CLI_CONNECT_H_

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "rpc/client/client.h"

namespace kdn::cli {

// The gateway that a command connects to.
struct GatewayToDial {
  std::string address = kDefaultAddress;
  std::string ca = "";  // see rpc::ConnectOptions
};

// The gateway of a node: its Unix socket if it has one, else its TCP port, with
// TLS and the authority as in the configuration.
GatewayToDial GatewayOf(const ClusterConfig& config, const NodeConfig& node);

// Adds --connect and --ca to a command. `gateway` must outlive the command.
void AddGatewayOptions(CLI::App& command, GatewayToDial& gateway);

// rpc::Client::Connect.
absl::StatusOr<std::unique_ptr<rpc::Client>> Dial(const GatewayToDial& gateway);
// The same with an error for people: it says what to do.
absl::StatusOr<std::unique_ptr<rpc::Client>> ConnectTo(
    const GatewayToDial& gateway);

}  // namespace kdn::cli

#endif  // KDN_CLI_CONNECT_H_
