#include "cli/wiring.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/cluster_view.h"
#include "cli/calibration_files.h"
#include "cli/descriptor_limit.h"

namespace kdn::cli {
namespace {

actors::NodeOptions NodeOptionsOf(const ClusterConfig& config,
                                  const NodeConfig& self) {
  actors::NodeOptions options;
  options.cluster = config.name;
  options.self = self.id;
  for (const NodeConfig& node : config.nodes) {
    options.members.push_back(placement::MemberSpec{
        .id = node.id,
        .weight = node.weight,
        .zone = "",
        .addresses = {node.host, node.control_port, node.bulk_port,
                      absl::StrCat(node.host, ":", node.gateway_port)}});
  }
  options.replicas = config.replicas;
  options.memory_bytes = self.memory_bytes;
  options.data_dir = self.data_dir;
  options.disk_bytes = self.disk_bytes;
  options.storage_actors = config.storage_actors;
  options.workers = config.workers;
  options.heartbeat = config.heartbeat;
  options.peer_timeout = config.peer_timeout;
  return options;
}

absl::Status AddCalibrations(const NodeConfig& self,
                             actors::NodeOptions* options) {
  if (self.calibrations.empty()) return absl::OkStatus();
  absl::StatusOr<std::vector<CalibrationFile>> files =
      LoadCalibrations(self.calibrations);
  if (!files.ok()) return files.status();
  if (files->empty()) {
    spdlog::warn("no *.kdncal file in calibrations {}", self.calibrations);
  }
  for (CalibrationFile& file : *files) {
    spdlog::info("calibration {} of model {}: {}",
                 ShortHex(file.calibration->id()),
                 ShortHex(file.calibration->model()), file.path);
    options->calibrations.push_back(std::move(file.calibration));
  }
  return absl::OkStatus();
}

// The address to listen on. A node whose host is loopback listens on loopback.
// Any other node listens on every interface, because its host may be an address
// that only peers see.
std::string BindAddress(const std::string& host) {
  return host == "127.0.0.1" || host == "localhost" ? "127.0.0.1" : "0.0.0.0";
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunningNode>> RunningNode::Start(
    const ClusterConfig& config, const NodeConfig& self) {
  const absl::StatusOr<DescriptorPlan> descriptors = PlanDescriptors(
      RaiseDescriptorLimit(), self.data_dir.empty() ? 0 : self.disk_bytes);
  if (!descriptors.ok()) return descriptors.status();
  if (!descriptors->warning.empty()) spdlog::warn(descriptors->warning);
  actors::NodeOptions options = NodeOptionsOf(config, self);
  if (absl::Status status = AddCalibrations(self, &options); !status.ok()) {
    return status;
  }
  std::unique_ptr<RunningNode> running(new RunningNode());
  running->view_ = std::make_unique<actors::ViewHolder>();
  rpc::BulkTransport::Options transport;
  transport.self = self.id;
  // The node publishes its first view before it asks anything of the transport,
  // and before the bulk server starts.
  const actors::ViewHolder* const view = running->view_.get();
  transport.resolve = [view](const NodeId& peer) {
    return view->Get()->BulkAddressOf(peer);
  };
  transport.introduce = [view, cluster = config.name](const NodeId& peer) {
    return placement::IntroductionTo(peer, cluster, *view->Get());
  };
  rpc::BulkServer::Options bulk;
  bulk.introduce = transport.introduce;
  options.meters = transport.meters;
  const std::shared_ptr<Meters> meters = transport.meters;
  bulk.meters = transport.meters;
  running->transport_ = rpc::BulkTransport::Start(std::move(transport));
  absl::StatusOr<std::unique_ptr<actors::Node>> node =
      actors::Node::Start(std::move(options), running->transport_.get(),
                          running->view_.get(), &running->clock_);
  if (!node.ok()) return node.status();
  running->node_ = *std::move(node);

  bulk.self = self.id;
  bulk.host = BindAddress(self.host);
  bulk.port = self.bulk_port;
  bulk.connections_max = descriptors->bulk_connections;
  absl::StatusOr<std::unique_ptr<rpc::BulkServer>> server =
      rpc::BulkServer::Start(std::move(bulk), &running->node_->peer_service());
  if (!server.ok()) return server.status();
  running->bulk_server_ = *std::move(server);

  rpc::Gateway::Options gateway;
  gateway.meters = meters;
  gateway.tcp_host = BindAddress(self.host);
  gateway.tcp_port = self.gateway_port;
  gateway.unix_path = self.gateway_socket;
  gateway.sessions_max = descriptors->sessions;
  gateway.regions_max = descriptors->regions;
  if (!self.gateway_socket.empty()) {
    std::error_code ignored;  // the gateway reports what it cannot open
    std::filesystem::create_directories(
        std::filesystem::path(self.gateway_socket).parent_path(), ignored);
  }
  absl::StatusOr<std::unique_ptr<rpc::Gateway>> started =
      rpc::Gateway::Start(std::move(gateway), &running->node_->service());
  if (!started.ok()) return started.status();
  running->gateway_ = *std::move(started);
  return running;
}

RunningNode::~RunningNode() {
  // The gateway stops first, then the bulk server, then the node that both use.
  // The transport stops before the node, because its callbacks reach the node.
  if (gateway_ != nullptr) gateway_->Stop();
  if (bulk_server_ != nullptr) bulk_server_->Stop();
  if (transport_ != nullptr) transport_->Stop();
  gateway_.reset();
  bulk_server_.reset();
  node_.reset();
}

}  // namespace kdn::cli
