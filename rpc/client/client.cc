#include "rpc/client/client.h"

#include <algorithm>
#include <string>
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

bool Client::KeepsCalibrations() const {
  const std::vector<std::string>& features = node().features;
  return std::find(features.begin(), features.end(), "calibrations") !=
         features.end();
}

absl::Status Client::CheckKeepsCalibrations() const {
  if (KeepsCalibrations()) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("node ", node().id.name(),
                   " does not take calibrations from clients: update it"));
}

absl::StatusOr<CalibrationReceipt> Client::StoreCalibration(
    absl::Span<const std::byte> file, absl::Duration timeout) {
  constexpr size_t kPartBytes = 4u << 20;
  if (absl::Status s = CheckKeepsCalibrations(); !s.ok()) return s;
  auto begin = connection_->session().storeCalibrationRequest();
  begin.setBytes(file.size());
  begin.setDeadlineMs(TimeoutToWire(timeout));
  auto begun = connection_->Call(kj::mv(begin), timeout);
  if (!begun.ok()) return begun.status();
  auto upload = begun->getUpload();
  for (absl::Span<const std::byte> left = file; !left.empty();) {
    const absl::Span<const std::byte> part = left.subspan(0, kPartBytes);
    left.remove_prefix(part.size());
    auto request = upload.partRequest();
    request.setBytes(kj::arrayPtr(
        reinterpret_cast<const kj::byte*>(part.data()), part.size()));
    auto taken = connection_->Call(kj::mv(request), timeout);
    if (!taken.ok()) return taken.status();
  }
  auto stored = connection_->Call(upload.commitRequest(), timeout);
  if (!stored.ok()) return stored.status();
  auto id = DigestFromWire<CalibrationId>(stored->getId(), "calibration id");
  if (!id.ok()) return absl::DataLossError(id.status().message());
  CalibrationReceipt receipt{*id, {}};
  for (const auto node : stored->getNodes()) {
    receipt.holders.emplace_back(FromWire(node));
  }
  return receipt;
}

absl::StatusOr<std::vector<CalibrationEntry>> Client::Calibrations(
    absl::Duration timeout) {
  if (absl::Status s = CheckKeepsCalibrations(); !s.ok()) return s;
  auto request = connection_->session().calibrationsRequest();
  request.setDeadlineMs(TimeoutToWire(timeout));
  auto answer = connection_->Call(kj::mv(request), timeout);
  if (!answer.ok()) return answer.status();
  std::vector<CalibrationEntry> entries;
  for (const auto calibration : answer->getCalibrations()) {
    auto entry = FromWire(calibration);
    if (!entry.ok()) return entry.status();
    entries.push_back(*std::move(entry));
  }
  return entries;
}

}  // namespace kdn::rpc
