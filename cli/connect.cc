#include "cli/connect.h"

#include "absl/strings/str_cat.h"
#include "cli/cluster_process.h"

namespace kdn::cli {

GatewayToDial GatewayOf(const ClusterConfig& config, const NodeConfig& node) {
  GatewayToDial gateway{.address = LocalAddressOf(config, node)};
  if (const auto files = TlsFilesOf(config, node)) gateway.ca = files->ca;
  return gateway;
}

absl::StatusOr<std::unique_ptr<rpc::Client>> Dial(
    const GatewayToDial& gateway) {
  return rpc::Client::Connect(gateway.address,
                              {.name = "kdn", .ca = gateway.ca});
}

void AddGatewayOptions(CLI::App& command, GatewayToDial& gateway) {
  command
      .add_option("--connect", gateway.address,
                  "gateway of a node: unix:/path, host:port or tls://host:port")
      ->capture_default_str();
  command.add_option("--ca", gateway.ca,
                     "for tls://: PEM file of the cluster's authority, ca.pem "
                     "of `kdn certs` (default: $KDN_CA)");
}

absl::StatusOr<std::unique_ptr<rpc::Client>> ConnectTo(
    const GatewayToDial& gateway) {
  absl::StatusOr<std::unique_ptr<rpc::Client>> client = Dial(gateway);
  if (client.ok() || !absl::IsUnavailable(client.status())) return client;
  return absl::Status(
      client.status().code(),
      absl::StrCat(client.status().message(),
                   "; is the cluster up (kdn up -c configs/local-3.yaml)? "
                   "--connect names another gateway, as `kdn up` printed it"));
}

}  // namespace kdn::cli
