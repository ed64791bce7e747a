#include "actors/peer_network.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <caf/io/all.hpp>
#include <caf/io/basp_broker.hpp>
#include <caf/io/network/default_multiplexer.hpp>
#include <caf/io/network/stream_impl.hpp>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actors/wire.h"
#include "kv/log.h"

namespace kdn::actors {
namespace {

namespace io = caf::io;
using StreamPtr = std::unique_ptr<delivery::ControlStream>;
using Multiplexer = io::network::default_multiplexer;
using RwState = io::network::rw_state;

// How CAF reads and writes a ControlStream.
class StreamPolicy {
 public:
  explicit StreamPolicy(StreamPtr stream) : stream_(std::move(stream)) {}

  RwState read_some(size_t& result, io::network::native_socket, void* buffer,
                    size_t length) {
    return StateOf(stream_->Read({static_cast<char*>(buffer), length}), result);
  }
  RwState write_some(size_t& result, io::network::native_socket,
                     const void* buffer, size_t length) {
    return StateOf(stream_->Write({static_cast<const char*>(buffer), length}),
                   result);
  }
  // The socket does not become readable for bytes that the stream holds.
  bool must_read_more(io::network::native_socket, size_t threshold) const {
    return stream_->pending() >= threshold;
  }
  delivery::ControlStream& stream() { return *stream_; }

 private:
  static RwState StateOf(const absl::StatusOr<size_t>& count, size_t& result) {
    result = count.value_or(0);
    if (count.ok()) return RwState::success;
    if (absl::IsPermissionDenied(count.status())) {
      LogWarning("control.connection", count.status().message());
    }
    return RwState::failure;
  }

  StreamPtr stream_;
};

class ControlSocket final : public io::network::stream {
 public:
  // Takes over `fd`, a duplicate of the stream's descriptor.
  ControlSocket(Multiplexer& multiplexer, int fd, StreamPtr stream)
      : io::network::stream(multiplexer, fd), policy_(std::move(stream)) {}
  void handle_event(io::network::operation operation) override {
    handle_event_impl(operation, policy_);
  }
  void SetGreeted() { policy_.stream().SetGreeted(); }
  void HangUp() { shutdown(fd(), SHUT_RDWR); }

 private:
  StreamPolicy policy_;
};

using SharedPtr = std::shared_ptr<PeerNetwork::Shared>;

// Checks what a peer sends, before CAF reads it or takes memory for it.
class HeaderCheck {
 public:
  explicit HeaderCheck(SharedPtr shared) : shared_(std::move(shared)) {}
  ~HeaderCheck() { shared_->receiving -= receiving_; }
  HeaderCheck(const HeaderCheck&) = delete;
  HeaderCheck& operator=(const HeaderCheck&) = delete;
  // Why the connection must be closed; null: CAF may have these bytes, which
  // are a whole header or a whole payload.
  const char* Check(absl::Span<const char> bytes);
  bool greeted() const { return greeted_; }

 private:
  using Type = io::basp::message_type;
  // False when the messages that are being received leave no room.
  bool TakeRoom(uint32_t payload);

  const SharedPtr shared_;
  uint64_t receiving_ = 0;  // of the large message that is next
  bool payload_next_ = false;
  bool greeted_ = false;  // a whole handshake has come
};

bool HeaderCheck::TakeRoom(uint32_t payload) {
  if (payload <= kControlGreetingMax) return true;
  if ((shared_->receiving += payload) > kControlReceivingMax) {
    shared_->receiving -= payload;
    return false;
  }
  receiving_ = payload;
  return true;
}

const char* HeaderCheck::Check(absl::Span<const char> bytes) {
  if (std::exchange(payload_next_, false)) {
    shared_->receiving -= std::exchange(receiving_, 0);
    greeted_ = true;
    return nullptr;
  }
  if (bytes.size() != io::basp::header_size) return "a header is cut off";
  const auto type = static_cast<Type>(bytes[0]);
  uint32_t payload;
  std::memcpy(&payload, bytes.data() + 4, sizeof(payload));
  payload = be32toh(payload);
  // CAF sends no other message without a payload, and crashes on one.
  if ((payload == 0) != (type == Type::heartbeat)) {
    return "a header announces no payload, or one that must not be";
  }
  if (!greeted_ && type != Type::server_handshake &&
      type != Type::client_handshake) {
    return "the first message is no handshake";
  }
  if (payload > (greeted_ ? kControlMessageMax : kControlGreetingMax)) {
    return "a header announces too large a message";
  }
  if (!TakeRoom(payload)) {
    return "too many large messages are being received";
  }
  payload_next_ = payload > 0;
  return nullptr;
}

// A connection of CAF's protocol. Its handle is no descriptor, as CAF's own
// are, because CAF cleans up after a handle some time after the connection has
// ended, when another connection may have the descriptor.
class ControlScribe final : public io::scribe {
 public:
  // The scribe of an open stream; null when no descriptor is left.
  static caf::intrusive_ptr<ControlScribe> Make(Multiplexer& multiplexer,
                                                const SharedPtr& shared,
                                                StreamPtr stream);
  ControlScribe(Multiplexer& multiplexer, SharedPtr shared, int fd,
                StreamPtr stream)
      : scribe(io::connection_handle::from_int(shared->next_handle++)),
        check_(std::move(shared)),
        socket_(multiplexer, fd, std::move(stream)) {}

  void configure_read(io::receive_policy::config config) override {
    socket_.configure_read(config);
    if (!std::exchange(launched_, true)) socket_.start(this);
  }
  void ack_writes(bool enable) override { socket_.ack_writes(enable); }
  std::vector<char>& wr_buf() override { return socket_.wr_buf(); }
  std::vector<char>& rd_buf() override { return socket_.rd_buf(); }
  void graceful_shutdown() override {
    socket_.graceful_shutdown();
    detach(&socket_.backend(), false);
  }
  void flush() override;
  std::string addr() const override {
    const auto address = io::network::remote_addr_of_fd(socket_.fd());
    return address ? *address : "";
  }
  uint16_t port() const override {
    const auto port = io::network::remote_port_of_fd(socket_.fd());
    return port ? *port : uint16_t{0};
  }
  void add_to_loop() override { socket_.activate(this); }
  void remove_from_loop() override { socket_.passivate(); }
  bool consume(caf::execution_unit* context, const void* buffer,
               size_t bytes) override;
  // Any thread.
  void HangUp() { socket_.HangUp(); }

 private:
  bool launched_ = false;
  HeaderCheck check_;
  ControlSocket socket_;
};

caf::intrusive_ptr<ControlScribe> ControlScribe::Make(Multiplexer& multiplexer,
                                                      const SharedPtr& shared,
                                                      StreamPtr stream) {
  // CAF closes the descriptor that it gets, and the stream closes its own.
  const int fd = fcntl(stream->fd(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) {
    LogError("control.connection", "no file descriptor left for a peer");
    return nullptr;
  }
  return caf::make_counted<ControlScribe>(multiplexer, shared, fd,
                                          std::move(stream));
}

void ControlScribe::flush() {
  if (wr_buf().size() > kControlUnsentMax) {
    LogWarning("control.connection",
               "closed a connection whose peer takes no bytes");
    wr_buf().clear();
    return HangUp();
  }
  socket_.flush(this);
}

bool ControlScribe::consume(caf::execution_unit* context, const void* buffer,
                            size_t bytes) {
  const bool greeted = check_.greeted();
  const char* const why =
      check_.Check({static_cast<const char*>(buffer), bytes});
  if (why != nullptr) {
    LogWarning("control.connection",
               absl::StrCat("closed a connection: ", why));
    HangUp();  // also while bytes wait to be sent
    io_failure(context, io::network::operation::read);
    return false;
  }
  if (!greeted && check_.greeted()) socket_.SetGreeted();
  return scribe::consume(context, buffer, bytes);
}

// Brings the connections that peers open to CAF. Has no socket of its own.
class ControlDoorman final : public io::doorman {
 public:
  ControlDoorman(Multiplexer& multiplexer, SharedPtr shared, uint16_t port)
      : doorman(io::accept_handle::from_int(port)),
        multiplexer_(multiplexer),
        shared_(std::move(shared)),
        port_(port) {}

  // On the thread of the multiplexer.
  void Accept(StreamPtr stream);

  bool new_connection() override { return false; }
  void launch() override {}
  void graceful_shutdown() override { detach(&multiplexer_, false); }
  std::string addr() const override { return ""; }
  uint16_t port() const override { return port_; }
  void add_to_loop() override {}
  void remove_from_loop() override {}

 private:
  Multiplexer& multiplexer_;
  const SharedPtr shared_;
  const uint16_t port_;
};

void ControlDoorman::Accept(StreamPtr stream) {
  if (detached()) return;  // the node stops
  auto scribe = ControlScribe::Make(multiplexer_, shared_, std::move(stream));
  if (scribe == nullptr) return;
  const io::connection_handle handle = scribe->hdl();
  parent()->add_scribe(std::move(scribe));
  doorman::new_connection(&multiplexer_, handle);
}

Multiplexer& MultiplexerOf(caf::actor_system& system) {
  return static_cast<Multiplexer&>(system.middleman().backend());
}

caf::actor BrokerOf(caf::actor_system& system) {
  return system.middleman().named_broker<io::basp_broker>(caf::atom("BASP"));
}

// For connecting, and again for the first message of the peer.
constexpr absl::Duration kDialTimeout = absl::Seconds(2);
constexpr auto kHandshakeTimeout = std::chrono::seconds(2);

struct ConnectorState {
  static inline const char* name = "connector";
  using Promise = caf::typed_response_promise<caf::strong_actor_ptr>;

  void Dial(const DialCall& call, Promise promise);
  void OnDialled(const DialEnd& end);
  // Exchanges the first messages of CAF's protocol.
  void Greet(caf::intrusive_ptr<ControlScribe> scribe, Promise promise);

  ConnectorActor::pointer self = nullptr;
  delivery::ControlNetwork* network = nullptr;
  SharedPtr shared;
  std::map<uint64_t, Promise> dials;
  uint64_t last_dial = 0;
};

void ConnectorState::Dial(const DialCall& call, Promise promise) {
  const uint64_t dial = ++last_dial;
  dials.emplace(dial, std::move(promise));
  network->Dial(call.peer, call.addresses, kDialTimeout,
                [to = caf::actor_cast<ConnectorActor>(self),
                 dial](absl::StatusOr<StreamPtr> stream) {
                  caf::anon_send(
                      to, DialEnd{dial, std::make_shared<DialEnd::Result>(
                                            std::move(stream))});
                });
}

void ConnectorState::OnDialled(const DialEnd& end) {
  Promise promise = std::move(dials.extract(end.dial).mapped());
  absl::StatusOr<StreamPtr>& stream = *end.stream;
  if (!stream.ok()) {
    promise.deliver(absl::IsPermissionDenied(stream.status())
                        ? RefusalOf(stream.status())
                        : caf::make_error(caf::sec::cannot_connect_to_node));
    return;
  }
  Greet(ControlScribe::Make(MultiplexerOf(self->system()), shared,
                            *std::move(stream)),
        std::move(promise));
}

void ConnectorState::Greet(caf::intrusive_ptr<ControlScribe> scribe,
                           Promise promise) {
  if (scribe == nullptr) {
    promise.deliver(caf::make_error(caf::sec::cannot_connect_to_node));
    return;
  }
  self->request(BrokerOf(self->system()), kHandshakeTimeout,
                caf::connect_atom::value, io::scribe_ptr(scribe), uint16_t{0})
      .then(
          [promise](const caf::node_id&, const caf::strong_actor_ptr& peer,
                    const std::set<std::string>&) mutable {
            promise.deliver(peer);
          },
          [promise, scribe](const caf::error& error) mutable {
            scribe->HangUp();  // the peer does not speak CAF's protocol
            promise.deliver(error);
          });
}

ConnectorActor::behavior_type MakeConnector(
    ConnectorActor::stateful_pointer<ConnectorState> self,
    delivery::ControlNetwork* network, SharedPtr shared) {
  ConnectorState* const state = &self->state;
  state->self = self;
  state->network = network;
  state->shared = std::move(shared);
  return {
      [self, state](const DialCall& call) {
        auto promise = self->make_response_promise<caf::strong_actor_ptr>();
        state->Dial(call, promise);
        return promise;
      },
      [state](const DialEnd& end) { state->OnDialled(end); },
  };
}

}  // namespace

PeerNetwork::PeerNetwork(caf::actor_system& system,
                         delivery::ControlNetwork& network)
    : system_(system),
      network_(network),
      connector_(system.spawn(MakeConnector, &network, shared_)) {}

absl::Status PeerNetwork::Listen(const std::string& address, uint16_t port,
                                 const NodeActor& node) {
  Multiplexer& multiplexer = MultiplexerOf(system_);
  auto doorman = caf::make_counted<ControlDoorman>(multiplexer, shared_, port);
  // The broker runs on the multiplexer's thread, so this comes before every
  // connection that is posted below.
  caf::anon_send(BrokerOf(system_), caf::publish_atom::value,
                 io::doorman_ptr(doorman), port,
                 caf::actor_cast<caf::strong_actor_ptr>(node),
                 system_.message_types(node));
  return network_
      .Listen(
          address, port,
          [&multiplexer, doorman](StreamPtr stream) {
            multiplexer.post([doorman, stream = std::move(stream)]() mutable {
              doorman->Accept(std::move(stream));
            });
          })
      .status();
}

}  // namespace kdn::actors
