#include "rpc/client/client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/client/connection.h"
#include "rpc/client/knowledge.h"
#include "rpc/client/wire.h"

namespace kdn::rpc {

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(
    std::string_view address, ConnectOptions options) {
  absl::StatusOr<std::shared_ptr<Connection>> connection =
      Connection::Open(address, options);
  if (!connection.ok()) return connection.status();
  return std::unique_ptr<Client>(new Client(*std::move(connection)));
}

Client::Client(std::shared_ptr<Connection> connection)
    : connection_(std::move(connection)) {}
Client::~Client() { connection_->loop().CheckThread(); }

const NodeInfo& Client::node() const { return connection_->node(); }
SessionId Client::session() const { return connection_->session_id(); }
bool Client::connected() const { return connection_->connected(); }
bool Client::shares_memory() const { return connection_->shares_memory(); }

absl::StatusOr<std::unique_ptr<Knowledge>> Client::Open(
    const Namespace& ns, const ModelSpec& model, absl::Duration timeout) {
  if (absl::Status status = Validate(model); !status.ok()) return status;
  const ModelFingerprint fingerprint = FingerprintOf(model);
  auto request = connection_->session().openRequest();
  request.setNamespace(ns.name());
  ToWire(model, request.initModel());
  request.setFingerprint(ToWire(fingerprint));
  auto answer = connection_->Call(kj::mv(request), timeout);
  if (!answer.ok()) return answer.status();
  return std::make_unique<KnowledgeImpl>(connection_, answer->getKnowledge(),
                                         ns, model, fingerprint);
}

absl::StatusOr<std::unique_ptr<Region>> Client::OpenMemory(
    size_t bytes, absl::Duration timeout) {
  return connection_->OpenMemory(bytes, timeout);
}

absl::Status Client::Ping(absl::Duration timeout) {
  return connection_->Call(connection_->session().infoRequest(), timeout)
      .status();
}

absl::StatusOr<std::vector<NodeStatus>> Client::Status(absl::Duration timeout) {
  auto request = connection_->session().statusRequest();
  request.setDeadlineMs(TimeoutToWire(timeout));
  auto answer = connection_->Call(kj::mv(request), timeout);
  if (!answer.ok()) return answer.status();
  std::vector<NodeStatus> nodes;
  for (const auto node : answer->getNodes()) nodes.push_back(FromWire(node));
  return nodes;
}

}  // namespace kdn::rpc
