#include "rpc/gateway/gateway.h"

#include <capnp/rpc-twoparty.h>
#include <unistd.h>

#include <list>
#include <utility>

#include "kv/log.h"
#include "rpc/event_loop.h"
#include "rpc/gateway/session.h"
#include "rpc/gateway/session_state.h"
#include "rpc/listener.h"

namespace kdn::rpc {
namespace {

// Most connections beyond the sessions: of engines that have not said hello,
// and of clients that fetch descriptors.
constexpr uint64_t kHelloesMax = 64;
// Clients send no descriptors, but 0 would also keep the gateway from sending
// them.
constexpr unsigned kFdsPerMessageMax = 1;

capnp::ReaderOptions ReaderOptionsOf(const Gateway::Options& options) {
  capnp::ReaderOptions reader;
  reader.traversalLimitInWords =
      options.message_bytes_max / sizeof(capnp::word);
  return reader;
}

// The connection of one engine: the stream and its RPC system.
struct EngineConnection {
  using RpcSystem = capnp::RpcSystem<capnp::rpc::twoparty::VatId>;
  kj::Own<kj::AsyncIoStream> stream;
  AdmissionGate::Pass slot;
  std::shared_ptr<bool> greeted = std::make_shared<bool>(false);
  kj::Own<capnp::TwoPartyVatNetwork> network;
  kj::Own<RpcSystem> rpc;

  EngineConnection(std::shared_ptr<GatewayState> gateway, bool local,
                   kj::Own<kj::AsyncIoStream> accepted,
                   AdmissionGate::Pass held)
      : stream(kj::mv(accepted)), slot(std::move(held)) {
    const auto side = capnp::rpc::twoparty::Side::SERVER;
    const auto reader = ReaderOptionsOf(gateway->options);
    if (local) {
      network = kj::heap<capnp::TwoPartyVatNetwork>(
          kj::downcast<kj::AsyncCapabilityStream>(*stream), kFdsPerMessageMax,
          side, reader);
    } else {
      TuneTcp(*stream);
      network = kj::heap<capnp::TwoPartyVatNetwork>(*stream, side, reader);
    }
    const uint64_t words =
        gateway->options.call_bytes_max / sizeof(capnp::word);
    rpc = kj::heap<RpcSystem>(capnp::makeRpcServer(
        *network, wire::Kdn::Client(kj::heap<KdnServer>(std::move(gateway),
                                                        local, greeted))));
    rpc->setFlowLimit(words);
  }
};

class GatewayImpl final : public Gateway, public kj::TaskSet::ErrorHandler {
 public:
  explicit GatewayImpl(Options options, delivery::NodeService* node)
      : options_(std::move(options)) {
    sessions_ =
        AdmissionGate::Create(static_cast<uint64_t>(options_.sessions_max));
    memory_ = AdmissionGate::Create(options_.memory_bytes_max);
    regions_ =
        AdmissionGate::Create(static_cast<uint64_t>(options_.regions_max));
    store_bytes_ = AdmissionGate::Create(UINT64_MAX);
    connections_ = AdmissionGate::Create(
        static_cast<uint64_t>(options_.sessions_max) + kHelloesMax);
    loop_.Run([&] {
      state_ = std::make_shared<GatewayState>(GatewayState{
          options_, node, &loop_, sessions_, memory_, regions_, store_bytes_,
          ScratchPool::Create(loop_, options_.scratch_bytes_max),
          /*desk=*/nullptr});
      scratch_ = state_->scratch;
    });
  }
  ~GatewayImpl() noexcept override { Stop(); }

  absl::Status Listen();
  uint16_t tcp_port() const override { return tcp_port_; }
  Usage usage() const override {
    return Usage{sessions_->used(), memory_->used(), scratch_->used(),
                 store_bytes_->used(), loop_.expected()};
  }
  void Stop() override;

 private:
  void Serve(int fd, bool local);
  void ServeDesk(int fd, const std::string& path);
  void Accept(kj::Own<kj::AsyncIoStream> stream, bool local);
  void taskFailed(kj::Exception&& broken) override {
    // An engine that disconnects is not an error.
    if (broken.getType() == kj::Exception::Type::DISCONNECTED) return;
    LogWarning("gateway.connection", broken.getDescription().cStr());
  }

  const Options options_;
  std::shared_ptr<AdmissionGate> sessions_;
  std::shared_ptr<AdmissionGate> memory_;
  std::shared_ptr<AdmissionGate> regions_;
  std::shared_ptr<AdmissionGate> store_bytes_;
  std::shared_ptr<AdmissionGate> connections_;
  std::shared_ptr<ScratchPool> scratch_;
  uint16_t tcp_port_ = 0;
  bool unix_bound_ = false;
  bool stopped_ = false;
  EventLoop loop_;
  // Created, used and released on the loop thread.
  std::shared_ptr<GatewayState> state_;
  kj::Own<kj::TaskSet> tasks_;
};

absl::Status GatewayImpl::Listen() {
  loop_.Run([&] { tasks_ = kj::heap<kj::TaskSet>(*this); });
  if (!options_.tcp_host.empty()) {
    absl::StatusOr<int> fd = ListenTcp(options_.tcp_host, options_.tcp_port);
    if (!fd.ok()) return fd.status();
    tcp_port_ = PortOf(*fd);
    Serve(*fd, /*local=*/false);
  }
  if (!options_.unix_path.empty()) {
    absl::StatusOr<int> fd = ListenUnix(options_.unix_path);
    if (!fd.ok()) return fd.status();
    unix_bound_ = true;
    const std::string desk_path = options_.unix_path + ".fd";
    absl::StatusOr<int> desk_fd = ListenUnix(desk_path);
    if (!desk_fd.ok()) {
      close(*fd);
      return desk_fd.status();
    }
    ServeDesk(*desk_fd, desk_path);
    Serve(*fd, /*local=*/true);
  }
  return absl::OkStatus();
}

void GatewayImpl::Serve(int fd, bool local) {
  loop_.Run([&] {
    tasks_->add(
        AcceptAll(loop_, fd, [this, local](kj::Own<kj::AsyncIoStream> stream) {
          Accept(kj::mv(stream), local);
        }));
  });
}

void GatewayImpl::ServeDesk(int fd, const std::string& path) {
  loop_.Run([&] {
    state_->desk = std::make_shared<DescriptorDesk>(loop_, path);
    tasks_->add(AcceptAll(
        loop_, fd,
        [this, desk = state_->desk](kj::Own<kj::AsyncIoStream> stream) {
          auto slot = connections_->TryTake(1, WorkClass::kRead);
          if (!slot) return;
          tasks_->add(
              desk->Serve(kj::mv(stream)).attach(kj::heap(std::move(slot))));
        }));
  });
}

void GatewayImpl::Accept(kj::Own<kj::AsyncIoStream> stream, bool local) {
  auto slot = connections_->TryTake(1, WorkClass::kRead);
  if (!slot) return;  // dropping the stream hangs up
  auto connection = kj::heap<EngineConnection>(state_, local, kj::mv(stream),
                                               std::move(slot));
  auto silent =
      loop_.At(EventLoop::In(options_.hello_timeout))
          .then([greeted = connection->greeted]() -> kj::Promise<void> {
            if (*greeted) return kj::NEVER_DONE;
            return kj::READY_NOW;
          });
  auto gone = connection->network->onDisconnect().exclusiveJoin(kj::mv(silent));
  tasks_->add(gone.attach(kj::mv(connection)));
}

void GatewayImpl::Stop() {
  if (std::exchange(stopped_, true)) return;
  if (unix_bound_) {
    unlink(options_.unix_path.c_str());
    unlink((options_.unix_path + ".fd").c_str());
  }
  loop_.Run([&] { tasks_ = nullptr; });
  loop_.RunAsync([&] { return loop_.WhenNothingLent(); });
  loop_.Run([&] { state_ = nullptr; });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(
    Options options, delivery::NodeService* node) {
  KDN_CHECK(node != nullptr, "a gateway needs a node");
  if (options.sessions_max < 1 || options.chunks_per_call_max < 1 ||
      options.window_bytes > options.scratch_bytes_max) {
    return absl::InvalidArgumentError(
        "gateway options: sessions_max and chunks_per_call_max must be at "
        "least 1, window_bytes at most scratch_bytes_max");
  }
  auto gateway = std::make_unique<GatewayImpl>(std::move(options), node);
  if (absl::Status status = gateway->Listen(); !status.ok()) return status;
  return gateway;
}

}  // namespace kdn::rpc
