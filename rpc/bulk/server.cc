#include "rpc/bulk/server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/log.h"
#include "rpc/bulk/session.h"
#include "rpc/listener.h"
#include "transfer/admission_gate.h"

namespace kdn::rpc {
namespace {

using transfer::AdmissionGate;

class BulkServerImpl final : public BulkServer,
                             public kj::TaskSet::ErrorHandler {
 public:
  BulkServerImpl(Options options, delivery::PeerService* service)
      : connections_(AdmissionGate::Create(
            static_cast<uint64_t>(options.connections_max))) {
    shared_.options = std::move(options);
    if (shared_.options.introduce == nullptr) {
      shared_.options.introduce = IntroduceByNameOnly(shared_.options.self);
    }
    shared_.service = service;
    shared_.loop = &loop_;
  }
  ~BulkServerImpl() noexcept override { Stop(); }

  absl::Status Listen() {
    absl::StatusOr<int> fd =
        ListenTcp(shared_.options.host, shared_.options.port);
    if (!fd.ok()) return fd.status();
    port_ = PortOf(*fd);
    loop_.Run([&] {
      tasks_ = kj::heap<kj::TaskSet>(*this);
      tasks_->add(
          AcceptAll(loop_, *fd, [this](kj::Own<kj::AsyncIoStream> stream) {
            Accept(kj::mv(stream));
          }));
    });
    return absl::OkStatus();
  }

  uint16_t port() const override { return port_; }
  Counters counters() const override { return Counters{connections_->used()}; }
  void Stop() override {
    if (std::exchange(stopped_, true)) return;
    loop_.Run([&] { tasks_ = nullptr; });
  }

 private:
  void Accept(kj::Own<kj::AsyncIoStream> stream) {
    auto slot = connections_->TryTake(1, WorkClass::kRead);
    if (!slot) {
      Refuse("too many connections");
      return;  // dropping the stream hangs up
    }
    TuneTcp(*stream);
    auto session = kj::heap<BulkSession>(shared_, kj::mv(stream));
    auto running = session->Run();
    tasks_->add(running.attach(kj::mv(session),
                               kj::heap<AdmissionGate::Pass>(std::move(slot))));
  }
  void taskFailed(kj::Exception&& broken) override {
    if (broken.getType() == kj::Exception::Type::FAILED) {
      Refuse(broken.getDescription().cStr());
    }
  }
  void Refuse(absl::string_view why) {
    shared_.options.meters->Add("peer_refused");
    LogWarning("bulk.serve",
               absl::StrCat("closed the connection of a peer: ", why));
  }

  BulkShared shared_;
  std::shared_ptr<AdmissionGate> connections_;
  uint16_t port_ = 0;
  bool stopped_ = false;
  EventLoop loop_;
  kj::Own<kj::TaskSet> tasks_;  // loop thread only
};

}  // namespace

absl::StatusOr<std::unique_ptr<BulkServer>> BulkServer::Start(
    Options options, delivery::PeerService* service) {
  KDN_CHECK(service != nullptr, "a bulk server needs a service");
  auto server = std::make_unique<BulkServerImpl>(std::move(options), service);
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace kdn::rpc
