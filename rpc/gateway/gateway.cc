#include "rpc/gateway/gateway.h"

#include <capnp/rpc-twoparty.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/log.h"
#include "rpc/connection_table.h"
#include "rpc/event_loop.h"
#include "rpc/gateway/engine_messages.h"
#include "rpc/gateway/session.h"
#include "rpc/gateway/session_state.h"
#include "rpc/tls/context.h"
#include "rpc/tls/stream.h"

namespace kdn::rpc {
namespace {

// Connections, and sessions, that only clients over the Unix socket get, and so
// for TCP.
constexpr size_t kKeptForLocal = 32;
constexpr size_t kKeptForRemote = 32;
// A client whose Session is gone may say hello again while objects of its
// earlier sessions live.
constexpr uint64_t kSessionsPerConnection = 4;
// Clients send no descriptors, but 0 would also keep the gateway from sending
// them.
constexpr unsigned kFdsPerMessageMax = 1;
// How often the gateway looks for clients that do not read their answers.
constexpr auto kQueueLook = 100 * kj::MILLISECONDS;
// A client that broke a limit has so long to read why.
constexpr auto kLastWords = 1 * kj::SECONDS;

capnp::ReaderOptions ReaderOptionsOf(const Gateway::Options& options) {
  capnp::ReaderOptions reader;
  reader.traversalLimitInWords =
      options.message_bytes_max / sizeof(capnp::word);
  return reader;
}

EngineMessages::Limits LimitsOf(const Gateway::Options& options) {
  EngineMessages::Limits limits;
  limits.bytes_max = options.message_bytes_max;
  limits.stall_max = options.message_stall_max;
  limits.stall_contended_max = options.message_stall_contended_max;
  limits.room_wait_max = options.message_room_wait_max;
  limits.queued_max = options.queued_bytes_per_client_max;
  limits.queued_pause = std::min(limits.queued_pause, limits.queued_max);
  return limits;
}

ConnectionTable::Options TableOf(const Gateway::Options& options) {
  const size_t all =
      static_cast<size_t>(options.sessions_max + Gateway::kBesideSessions);
  const auto of_address =
      static_cast<size_t>(std::min(options.connections_per_address_max,
                                   std::max(options.sessions_max / 2, 1)));
  return {.connections_max = all,
          .silent_max = all,
          .silent_per_peer_max = of_address,
          .per_peer_max = of_address,
          .kept_for_local = options.unix_path.empty() ? 0 : kKeptForLocal,
          .kept_for_remote = options.tcp_host.empty() ? 0 : kKeptForRemote};
}

// The sessions that clients of one class may have, if `kept` are kept for
// clients of the other class.
std::shared_ptr<AdmissionGate> SessionsBeside(size_t kept,
                                              const Gateway::Options& options) {
  const auto all = static_cast<uint64_t>(options.sessions_max);
  return AdmissionGate::Create(all - std::min<uint64_t>(kept, all / 4));
}

// The connection of one engine: the stream and its RPC system.
struct EngineConnection {
  using RpcSystem = capnp::RpcSystem<capnp::rpc::twoparty::VatId>;
  kj::Own<kj::AsyncIoStream> stream;
  const std::shared_ptr<EngineLink> link;
  kj::Own<EngineMessages> messages;
  kj::Own<capnp::TwoPartyVatNetwork> network;
  kj::Own<RpcSystem> rpc;

  EngineConnection(std::shared_ptr<GatewayState> gateway,
                   std::shared_ptr<EngineLink> to,
                   kj::Own<kj::AsyncIoStream> accepted)
      : stream(kj::mv(accepted)), link(std::move(to)) {
    const bool local = link->local;
    kj::Own<capnp::MessageStream> inner;
    if (local) {
      inner = kj::heap<capnp::AsyncCapabilityMessageStream>(
          kj::downcast<kj::AsyncCapabilityStream>(*stream));
    } else {
      inner = kj::heap<capnp::AsyncIoMessageStream>(*stream);
    }
    const Gateway::Options& options = gateway->options;
    messages = kj::heap<EngineMessages>(
        *gateway->loop, *stream, kj::mv(inner), LimitsOf(options),
        EngineMessages::Budgets{gateway->received, gateway->small_received},
        RequesterId(link->id),
        std::shared_ptr<const bool>(link, &link->greeted));
    network = kj::heap<capnp::TwoPartyVatNetwork>(
        *messages, local ? kFdsPerMessageMax : 0,
        capnp::rpc::twoparty::Side::SERVER, ReaderOptionsOf(options));
    messages->set_network(network);
    link->messages = messages;
    const uint64_t words = options.call_bytes_max / sizeof(capnp::word);
    rpc = kj::heap<RpcSystem>(capnp::makeRpcServer(
        *network,
        wire::Kdn::Client(kj::heap<KdnServer>(std::move(gateway), link))));
    rpc->setFlowLimit(words);
  }
  ~EngineConnection() noexcept(false) { link->messages = nullptr; }
};

std::shared_ptr<EngineLink> MakeLink(uint64_t id, bool local) {
  auto link = std::make_shared<EngineLink>();
  link->id = id;
  link->local = local;
  link->sessions = AdmissionGate::Create(kSessionsPerConnection);
  return link;
}

class GatewayImpl final : public Gateway, public kj::TaskSet::ErrorHandler {
 public:
  explicit GatewayImpl(Options options, delivery::NodeService* node)
      : options_(std::move(options)),
        table_(TableOf(options_)),
        desk_table_({.connections_max = kDeskVisitorsMax,
                     .silent_max = kDeskVisitorsMax,
                     .silent_per_peer_max = kDeskVisitorsMax,
                     .per_peer_max = kDeskVisitorsMax,
                     .kept_for_local = 0,
                     .kept_for_remote = 0}) {
    sessions_ =
        AdmissionGate::Create(static_cast<uint64_t>(options_.sessions_max));
    memory_ = AdmissionGate::Create(options_.memory_bytes_max);
    regions_ =
        AdmissionGate::Create(static_cast<uint64_t>(options_.regions_max));
    store_bytes_ = AdmissionGate::Create(UINT64_MAX);
    if (options_.tls != nullptr) tls_ = GatewayContext(*options_.tls);
    loop_.Run([&] {
      state_ = std::make_shared<GatewayState>(GatewayState{
          .options = options_,
          .node = node,
          .loop = &loop_,
          .sessions = sessions_,
          .local_sessions =
              SessionsBeside(TableOf(options_).kept_for_remote, options_),
          .remote_sessions =
              SessionsBeside(TableOf(options_).kept_for_local, options_),
          .memory = memory_,
          .regions = regions_,
          .store_bytes = store_bytes_,
          .calibration_bytes =
              AdmissionGate::Create(options_.calibration_bytes_max),
          .scratch = ScratchPool::Create(loop_, options_.scratch_bytes_max),
          .received = ByteBudget::Create(loop_, options_.received_bytes_max),
          .small_received =
              ByteBudget::Create(loop_, options_.small_received_bytes_max),
          .call_memory = ByteBudget::Create(loop_, options_.call_memory_max),
          .connections = &table_,
          .hang_up = [this](uint64_t id) { HangUp(id); },
          .desk = nullptr});
      scratch_ = state_->scratch;
      received_ = state_->received;
      small_received_ = state_->small_received;
      call_memory_ = state_->call_memory;
    });
  }
  ~GatewayImpl() noexcept override { Stop(); }

  absl::Status Listen();
  uint16_t tcp_port() const override { return tcp_port_; }
  Usage usage() const override {
    return Usage{.sessions = sessions_->used(),
                 .memory_bytes = memory_->used(),
                 .scratch_bytes = scratch_->used(),
                 .store_bytes = store_bytes_->used(),
                 .node_calls = loop_.expected(),
                 .connections = open_.load(),
                 .received_bytes = received_->used(),
                 .small_received_bytes = small_received_->used(),
                 .call_memory = call_memory_->used(),
                 .queued_bytes = queued_.load()};
  }
  void Stop() override;

 private:
  struct Open {
    EngineMessages* messages = nullptr;  // null during the handshake of TLS
    kj::Own<kj::PromiseFulfiller<void>> hang_up;
  };
  void Serve(int fd, bool local);
  void ServeDesk(int fd, const std::string& path);
  void Accept(kj::Own<kj::AsyncIoStream> stream, bool local);
  // The connection under TLS, if clients over TCP use it.
  kj::Promise<kj::Own<kj::AsyncIoStream>> Secure(
      kj::Own<kj::AsyncIoStream> stream, bool local);
  // Serves a client until the connection is to end.
  kj::Promise<void> Talk(const std::shared_ptr<EngineLink>& link,
                         kj::Own<kj::AsyncIoStream> stream);
  void Visit(DescriptorDesk& desk, kj::Own<kj::AsyncIoStream> stream);
  kj::Promise<void> UntilSilentTooLong(std::shared_ptr<EngineLink> link);
  void Forget(uint64_t id);
  void HangUp(uint64_t id);
  void Refuse(absl::string_view why);
  // Hangs up on clients that do not read their answers.
  kj::Promise<void> WatchQueues();
  void taskFailed(kj::Exception&& broken) override {
    // An engine that disconnects is not an error.
    if (broken.getType() == kj::Exception::Type::DISCONNECTED) return;
    LogWarning("gateway.connection", broken.getDescription().cStr());
  }

  const Options options_;
  SslContext tls_{nullptr, SSL_CTX_free};  // null: TCP is plaintext
  std::shared_ptr<AdmissionGate> sessions_;
  std::shared_ptr<AdmissionGate> memory_;
  std::shared_ptr<AdmissionGate> regions_;
  std::shared_ptr<AdmissionGate> store_bytes_;
  std::shared_ptr<ScratchPool> scratch_;
  std::shared_ptr<ByteBudget> received_;
  std::shared_ptr<ByteBudget> small_received_;
  std::shared_ptr<ByteBudget> call_memory_;
  uint16_t tcp_port_ = 0;
  bool unix_bound_ = false;
  bool stopped_ = false;
  std::atomic<uint64_t> open_{0};
  std::atomic<uint64_t> queued_{0};
  // Created, used and released on the loop thread.
  ConnectionTable table_;
  ConnectionTable desk_table_;
  std::map<uint64_t, Open> connections_;
  std::map<uint64_t, kj::Own<kj::PromiseFulfiller<void>>> visitors_;
  uint64_t next_connection_ = 1;
  EventLoop loop_;
  std::shared_ptr<GatewayState> state_;
  kj::Own<kj::TaskSet> tasks_;
};

absl::Status GatewayImpl::Listen() {
  loop_.Run([&] {
    tasks_ = kj::heap<kj::TaskSet>(*this);
    tasks_->add(WatchQueues());
  });
  if (!options_.tcp_host.empty()) {
    absl::StatusOr<int> fd = ListenTcp(options_.tcp_host, options_.tcp_port);
    if (!fd.ok()) return fd.status();
    tcp_port_ = PortOf(*fd);
    Serve(*fd, /*local=*/false);
  }
  if (!options_.unix_path.empty()) {
    absl::StatusOr<int> fd =
        ListenUnix(options_.unix_path, options_.unix_access);
    if (!fd.ok()) return fd.status();
    unix_bound_ = true;
    const std::string desk_path = options_.unix_path + ".fd";
    absl::StatusOr<int> desk_fd = ListenUnix(desk_path, options_.unix_access);
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
          Visit(*desk, kj::mv(stream));
        }));
  });
}

void GatewayImpl::Visit(DescriptorDesk& desk,
                        kj::Own<kj::AsyncIoStream> stream) {
  const uint64_t id = next_connection_++;
  const auto victims =
      desk_table_.Add(id, ConnectionTable::Class::kLocal, "local");
  if (!victims) return;  // dropping the stream hangs up
  for (const uint64_t victim : *victims) visitors_.at(victim)->fulfill();
  auto paf = kj::newPromiseAndFulfiller<void>();
  visitors_.emplace(id, kj::mv(paf.fulfiller));
  tasks_->add(desk.Serve(kj::mv(stream))
                  .exclusiveJoin(kj::mv(paf.promise))
                  .attach(kj::defer([this, id] {
                    desk_table_.Remove(id);
                    visitors_.erase(id);
                  })));
}

void GatewayImpl::Refuse(absl::string_view why) {
  options_.meters->Add("engines_refused");
  LogWarning("gateway.refused", why);
}

void GatewayImpl::HangUp(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Refuse(
      "hung up on a client that had opened nothing, or had not said hello, to "
      "make room for another one");
  found->second.hang_up->fulfill();
}

void GatewayImpl::Forget(uint64_t id) {
  table_.Remove(id);
  connections_.erase(id);
  open_.store(connections_.size());
}

kj::Promise<void> GatewayImpl::UntilSilentTooLong(
    std::shared_ptr<EngineLink> link) {
  return loop_.At(EventLoop::In(options_.hello_timeout))
      .then([link]() -> kj::Promise<void> {
        if (link->greeted) return kj::NEVER_DONE;
        return kj::READY_NOW;
      });
}

void GatewayImpl::Accept(kj::Own<kj::AsyncIoStream> stream, bool local) {
  const uint64_t id = next_connection_++;
  const auto victims = table_.Add(id, ConnectionTable::ClassOf(local),
                                  local ? "local" : PeerOf(*stream));
  if (!victims) {
    return Refuse(
        "too many connections of engines, or too many of one address: hung up "
        "on another one");
  }
  for (const uint64_t victim : *victims) HangUp(victim);
  auto forget = kj::defer([this, id] { Forget(id); });
  auto paf = kj::newPromiseAndFulfiller<void>();
  connections_.emplace(id, Open{nullptr, kj::mv(paf.fulfiller)});
  open_.store(connections_.size());
  if (!local) TuneTcp(*stream);
  auto link = MakeLink(id, local);
  tasks_->add(Secure(kj::mv(stream), local)
                  .then([this, link](kj::Own<kj::AsyncIoStream> secure) {
                    return Talk(link, kj::mv(secure));
                  })
                  .exclusiveJoin(UntilSilentTooLong(link))
                  .exclusiveJoin(kj::mv(paf.promise))
                  .attach(kj::mv(forget)));
}

kj::Promise<kj::Own<kj::AsyncIoStream>> GatewayImpl::Secure(
    kj::Own<kj::AsyncIoStream> stream, bool local) {
  using Stream = kj::Own<kj::AsyncIoStream>;
  if (local || tls_ == nullptr) return kj::mv(stream);
  return TlsIoStream::Accept(kj::mv(stream), *tls_)
      .then(
          [](kj::Own<TlsIoStream> secure) -> Stream { return kj::mv(secure); })
      .catch_([this](kj::Exception&& broken) -> kj::Promise<Stream> {
        Refuse(absl::StrCat("hung up on a client over TCP: ",
                            broken.getDescription().cStr()));
        return KJ_EXCEPTION(DISCONNECTED, "no TLS");
      });
}

kj::Promise<void> GatewayImpl::Talk(const std::shared_ptr<EngineLink>& link,
                                    kj::Own<kj::AsyncIoStream> stream) {
  auto connection = kj::heap<EngineConnection>(state_, link, kj::mv(stream));
  connections_.at(link->id).messages = connection->messages;
  auto unlist = kj::defer([this, id = link->id] {
    const auto found = connections_.find(id);
    if (found != connections_.end()) found->second.messages = nullptr;
  });
  auto broken = connection->messages->WhenBroken().then(
      [this, link]() -> kj::Promise<void> {
        Refuse(
            "hung up on a client that sent a message that is too large, broken "
            "or too slow");
        if (!link->greeted) return kj::READY_NOW;
        return loop_.At(EventLoop::Now() + kLastWords);
      });
  return connection->network->onDisconnect()
      .exclusiveJoin(kj::mv(broken))
      .attach(kj::mv(unlist), kj::mv(connection));
}

kj::Promise<void> GatewayImpl::WatchQueues() {
  uint64_t total = 0;
  uint64_t most = 0;
  Open* largest = nullptr;
  for (auto& [id, open] : connections_) {
    if (open.messages == nullptr) continue;
    const uint64_t queued = open.messages->queued_bytes();
    total += queued;
    if (largest == nullptr || queued > most) {
      largest = &open;
      most = queued;
    }
    if (!open.messages->overdrawn()) continue;
    Refuse("hung up on a client that does not read its answers");
    open.hang_up->fulfill();
  }
  queued_.store(total);
  if (total > options_.queued_bytes_max) {
    Refuse(
        "hung up on the client with the most unread answers: too much waits to "
        "be sent");
    largest->hang_up->fulfill();
  }
  return loop_.At(EventLoop::Now() + kQueueLook).then([this] {
    return WatchQueues();
  });
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
      options.window_bytes > options.scratch_bytes_max ||
      options.message_bytes_max > options.received_bytes_max) {
    return absl::InvalidArgumentError(
        "gateway options: sessions_max and chunks_per_call_max must be at "
        "least 1, window_bytes at most scratch_bytes_max, message_bytes_max at "
        "most received_bytes_max");
  }
  auto gateway = std::make_unique<GatewayImpl>(std::move(options), node);
  if (absl::Status status = gateway->Listen(); !status.ok()) return status;
  return gateway;
}

}  // namespace kdn::rpc
