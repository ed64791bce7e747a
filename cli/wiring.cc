#include "cli/wiring.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "actors/cluster_view.h"
#include "cli/calibration_files.h"
#include "cli/descriptor_limit.h"
#include "cli/node_credentials.h"
#include "rpc/listener.h"
#include "rpc/tls/credentials.h"

namespace kdn::cli {
namespace {

// The memory that a node takes for pushes before their bytes have come is an
// eighth of its memory, and at least this much.
constexpr uint64_t kUnreceivedMin = 32u << 20;

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
                      GatewayAddressOf(config, node)}});
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
    options->calibrations.push_back(std::move(file.bytes));
  }
  return absl::OkStatus();
}

// The address to listen on, as a number: of `listen` if it is set, else of the
// node's host. So a node listens no wider than its configuration says.
absl::StatusOr<std::string> ListenAddress(const ClusterConfig& config,
                                          const NodeConfig& self) {
  const std::string& host = self.listen.empty() ? self.host : self.listen;
  absl::StatusOr<std::string> address = rpc::NumericAddress(host);
  if (!address.ok()) return address;
  if (self.listen.empty() && rpc::IsLoopback(*address) && *address != host &&
      host != "localhost") {
    return absl::InvalidArgumentError(absl::StrCat(
        "host ", host, " is ", *address,
        " on this machine, which no other machine reaches: set `listen` to an "
        "address that they reach, or to 0.0.0.0"));
  }
  if (absl::Status s = CheckReach(config, self, *address); !s.ok()) return s;
  if (config.security.insecure && !IsLoopbackHost(*address)) {
    spdlog::warn(
        "insecure: whoever reaches the ports at {} can stop this node, and "
        "read and replace KV",
        *address);
  }
  return address;
}

// The node's credentials, or null. Logs which certificate the node uses.
absl::StatusOr<std::shared_ptr<const rpc::TlsCredentials>> UseCredentials(
    const ClusterConfig& config, const NodeConfig& self) {
  const absl::Time now = absl::Now();
  absl::StatusOr<std::shared_ptr<const rpc::TlsCredentials>> credentials =
      LoadCredentials(config, self, now);
  if (!credentials.ok() || *credentials == nullptr) return credentials;
  const std::string path = TlsFilesOf(config, self)->certificate;
  const absl::Time end = (*credentials)->expires();
  spdlog::info(
      "TLS with certificate {} of {}, valid until {}", path,
      (*credentials)->name(),
      absl::FormatTime("%Y-%m-%d %H:%M UTC", end, absl::UTCTimeZone()));
  const std::string warning = ExpiryWarning(path, end, now);
  if (!warning.empty()) spdlog::warn("{}", warning);
  return credentials;
}

// The error of a port that cannot be opened, with what to do about an address
// that is not one of this machine.
absl::Status ListenError(const NodeConfig& self, const absl::Status& status) {
  if (!absl::IsInvalidArgument(status) || !self.listen.empty()) return status;
  return absl::InvalidArgumentError(absl::StrCat(
      status.message(), ": if ", self.host,
      " is an address that only peers see, set `listen: 0.0.0.0`"));
}

}  // namespace

void MakeSocketDirectory(const std::string& socket) {
  namespace fs = std::filesystem;
  fs::path directory;
  for (const fs::path& part : fs::path(socket).parent_path()) {
    directory /= part;
    std::error_code ignored;
    if (!fs::create_directory(directory, ignored)) continue;
    fs::permissions(directory,
                    fs::perms::owner_all | fs::perms::group_read |
                        fs::perms::group_exec | fs::perms::others_read |
                        fs::perms::others_exec,
                    ignored);
  }
}

absl::StatusOr<std::unique_ptr<RunningNode>> RunningNode::Start(
    const ClusterConfig& config, const NodeConfig& self) {
  const absl::StatusOr<DescriptorPlan> descriptors = PlanDescriptors(
      RaiseDescriptorLimit(), self.data_dir.empty() ? 0 : self.disk_bytes,
      config.nodes.size() - 1);
  if (!descriptors.ok()) return descriptors.status();
  if (!descriptors->warning.empty()) spdlog::warn(descriptors->warning);
  const absl::StatusOr<std::string> address = ListenAddress(config, self);
  if (!address.ok()) return address.status();
  const absl::StatusOr<std::shared_ptr<const rpc::TlsCredentials>> credentials =
      UseCredentials(config, self);
  if (!credentials.ok()) return credentials.status();
  actors::NodeOptions options = NodeOptionsOf(config, self);
  options.listen_address = *address;
  if (absl::Status status = AddCalibrations(self, &options); !status.ok()) {
    return status;
  }
  std::unique_ptr<RunningNode> running(new RunningNode());
  running->view_ = std::make_unique<actors::ViewHolder>();
  rpc::BulkTransport::Options transport;
  transport.self = self.id;
  transport.tls = *credentials;
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
  rpc::ControlPort::Options control;
  control.connections_max = static_cast<size_t>(descriptors->peers);
  control.tls = *credentials;
  control.meters = meters;
  running->control_port_ = rpc::ControlPort::Create(std::move(control));
  absl::StatusOr<std::unique_ptr<actors::Node>> node = actors::Node::Start(
      std::move(options), running->transport_.get(),
      running->control_port_.get(), running->view_.get(), &running->clock_);
  if (!node.ok()) return ListenError(self, node.status());
  running->node_ = *std::move(node);

  bulk.self = self.id;
  bulk.tls = *credentials;
  bulk.host = *address;
  bulk.port = self.bulk_port;
  bulk.connections_max = descriptors->bulk_connections;
  bulk.push_unreceived_max =
      std::max<uint64_t>(kUnreceivedMin, self.memory_bytes / 8);
  absl::StatusOr<std::unique_ptr<rpc::BulkServer>> server =
      rpc::BulkServer::Start(std::move(bulk), &running->node_->peer_service());
  if (!server.ok()) return ListenError(self, server.status());
  running->bulk_server_ = *std::move(server);

  rpc::Gateway::Options gateway;
  gateway.meters = meters;
  gateway.tcp_host = *address;
  gateway.tcp_port = self.gateway_port;
  if (config.security.gateway_tls()) gateway.tls = *credentials;
  gateway.unix_path = self.gateway_socket;
  gateway.calibration_bytes_max =
      actors::CalibrationBytesMax(self.memory_bytes);
  gateway.sessions_max = descriptors->sessions;
  gateway.regions_max = descriptors->regions;
  gateway.unix_access = {self.gateway_socket_mode, self.gateway_socket_group};
  if (!self.gateway_socket.empty()) MakeSocketDirectory(self.gateway_socket);
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
