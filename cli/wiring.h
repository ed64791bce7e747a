#ifndef KDN_CLI_WIRING_H_
#define KDN_CLI_WIRING_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "actors/node.h"
#include "cli/config.h"
#include "kv/clock.h"
#include "rpc/bulk/client.h"
#include "rpc/bulk/server.h"
#include "rpc/control/control_port.h"
#include "rpc/gateway/gateway.h"

namespace kdn::cli {

// Makes the directory of a Unix socket, and its parents. Everybody may pass
// through each directory that this makes, because the mode of the socket
// decides who may connect. The gateway reports what it cannot open.
void MakeSocketDirectory(const std::string& socket);

// One whole node: transport, actors, bulk server and gateway. The destructor
// stops them.
class RunningNode {
 public:
  // Errors name the address or directory that is taken, the host that no other
  // machine reaches, the address that other machines reach without
  // certificates, or the file that is not a calibration, certificate or key.
  static absl::StatusOr<std::unique_ptr<RunningNode>> Start(
      const ClusterConfig& config, const NodeConfig& self);
  ~RunningNode();

 private:
  RunningNode() = default;
  RealClock clock_;
  // Null where the configuration names no certificates.
  std::unique_ptr<actors::ViewHolder> view_;
  std::unique_ptr<rpc::BulkTransport> transport_;
  std::unique_ptr<rpc::ControlPort> control_port_;
  std::unique_ptr<actors::Node> node_;
  std::unique_ptr<rpc::BulkServer> bulk_server_;
  std::unique_ptr<rpc::Gateway> gateway_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_WIRING_H_
