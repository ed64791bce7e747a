#include "rpc/control/control_port.h"

#include <fcntl.h>
#include <kj/debug.h>

#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/host_port.h"
#include "kv/log.h"
#include "rpc/connection_table.h"
#include "rpc/control/handshake.h"
#include "rpc/control/stream.h"
#include "rpc/event_loop.h"
#include "rpc/listener.h"

namespace kdn::rpc {
namespace {

using StreamResult = absl::StatusOr<std::unique_ptr<SocketStream>>;

// A descriptor of the connection that KJ does not use.
absl::StatusOr<kj::AutoCloseFd> TakeSocket(kj::Own<kj::AsyncIoStream> stream) {
  KJ_IF_MAYBE (fd, stream->getFd()) {
    const int own = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
    if (own >= 0) return kj::AutoCloseFd(own);
  }
  return absl::ResourceExhaustedError("no file descriptor for a connection");
}

class ControlPortImpl final : public ControlPort,
                              public kj::TaskSet::ErrorHandler {
 public:
  explicit ControlPortImpl(Options options)
      : options_(std::move(options)),
        context_(options_.tls == nullptr
                     ? TlsCredentials::SslContext(nullptr, SSL_CTX_free)
                     : options_.tls->NewSslContext()),
        table_({.connections_max = options_.connections_max,
                .silent_max = options_.silent_max,
                .silent_per_peer_max = options_.silent_max,
                .per_peer_max = options_.connections_max,
                .kept_for_local = 0,
                .kept_for_remote = 0}) {
    loop_.Run([&] { tasks_ = kj::heap<kj::TaskSet>(*this); });
  }
  ~ControlPortImpl() noexcept override { Close(); }

  absl::StatusOr<uint16_t> Listen(const std::string& address, uint16_t port,
                                  OnStream on_stream) override;
  void Dial(const NodeId& peer, const placement::Addresses& addresses,
            absl::Duration timeout, OnDialled on_dialled) override;
  void Close() override {
    loop_.Run([&] {
      closed_ = true;
      tasks_ = nullptr;
      accepted_.clear();
      open_.store(0);
      on_stream_ = nullptr;
    });
  }
  size_t connections() const override { return open_.load(); }

 private:
  // Everything below is of the loop thread.
  void Accept(kj::Own<kj::AsyncIoStream> stream);
  // Performs the handshake, passes the stream on, and waits until the peer
  // should have introduced itself.
  kj::Promise<void> Greet(uint64_t id, kj::AutoCloseFd fd);
  void PassOn(uint64_t id, StreamResult stream);
  // The stream of a connected socket, after the handshake if there is TLS.
  kj::Promise<StreamResult> Secure(kj::AutoCloseFd fd,
                                   const std::optional<std::string>& server,
                                   StreamEvents events);
  kj::Promise<StreamResult> Connect(const NodeId& peer,
                                    const std::string& address);
  // Reports what a stream of an accepted connection tells to the loop.
  StreamEvents EventsOf(uint64_t id);
  void OnGreeted(uint64_t id);
  void HangUp(uint64_t id, absl::string_view why);
  void Forget(uint64_t id);
  void Refuse(absl::string_view why);
  void taskFailed(kj::Exception&& broken) override {
    Refuse(broken.getDescription().cStr());
  }

  // A connection that a peer has opened.
  struct Connection {
    // Ends the wait for the handshake and the introduction.
    kj::Own<kj::PromiseFulfiller<void>> greeted;
    // Null during the handshake.
    std::shared_ptr<HangUpHandle> handle;
  };

  const Options options_;
  const TlsCredentials::SslContext context_;
  std::atomic<size_t> open_{0};
  OnStream on_stream_;
  bool closed_ = false;
  ConnectionTable table_;
  std::map<uint64_t, Connection> accepted_;
  uint64_t next_id_ = 1;
  EventLoop loop_;
  kj::Own<kj::TaskSet> tasks_;
};

absl::StatusOr<uint16_t> ControlPortImpl::Listen(const std::string& address,
                                                 uint16_t port,
                                                 OnStream on_stream) {
  const absl::StatusOr<int> fd = ListenTcp(address, port);
  if (!fd.ok()) return fd.status();
  const uint16_t listening = PortOf(*fd);
  loop_.Run([&] {
    on_stream_ = std::move(on_stream);
    tasks_->add(AcceptAll(
        loop_, *fd,
        [this](kj::Own<kj::AsyncIoStream> stream) { Accept(kj::mv(stream)); }));
  });
  return listening;
}

void ControlPortImpl::Accept(kj::Own<kj::AsyncIoStream> stream) {
  const uint64_t id = next_id_++;
  std::string peer = PeerOf(*stream);
  TuneTcp(*stream);
  absl::StatusOr<kj::AutoCloseFd> fd = TakeSocket(kj::mv(stream));
  if (!fd.ok()) return Refuse(fd.status().message());
  const auto victims =
      table_.Add(id, ConnectionTable::Class::kRemote, std::move(peer));
  if (!victims) return Refuse("too many connections are in use");
  for (const uint64_t victim : *victims) {
    HangUp(victim, "it was silent, and made room for another one");
  }
  auto greeted = kj::newPromiseAndFulfiller<void>();
  accepted_[id].greeted = kj::mv(greeted.fulfiller);
  open_.store(accepted_.size());
  auto forget = kj::defer([this, id] {
    const auto found = accepted_.find(id);
    if (found != accepted_.end() && found->second.handle == nullptr) Forget(id);
  });
  tasks_->add(Greet(id, kj::mv(*fd))
                  .exclusiveJoin(kj::mv(greeted.promise))
                  .attach(kj::mv(forget)));
}

kj::Promise<void> ControlPortImpl::Greet(uint64_t id, kj::AutoCloseFd fd) {
  const kj::TimePoint deadline = EventLoop::In(options_.greeting_timeout);
  return Within(loop_, options_.greeting_timeout,
                Secure(kj::mv(fd), std::nullopt, EventsOf(id)))
      .then([this, id](StreamResult stream) { PassOn(id, std::move(stream)); })
      .then([this, deadline] { return loop_.At(deadline); })
      .then([this, id] { HangUp(id, "it did not introduce itself in time"); });
}

void ControlPortImpl::PassOn(uint64_t id, StreamResult stream) {
  if (stream.ok()) {
    accepted_[id].handle = (*stream)->handle();
    return on_stream_(*std::move(stream));
  }
  Refuse(stream.status().message());
  accepted_[id].greeted->fulfill();
}

kj::Promise<StreamResult> ControlPortImpl::Secure(
    kj::AutoCloseFd fd, const std::optional<std::string>& server,
    StreamEvents events) {
  if (context_ == nullptr) {
    return StreamResult(
        std::make_unique<SocketStream>(kj::mv(fd), std::move(events)));
  }
  auto shaking = Handshake(loop_, *context_, fd.get(), server);
  return shaking.then([fd = kj::mv(fd), events = std::move(events)](
                          absl::StatusOr<SslPtr> ssl) mutable -> StreamResult {
    if (!ssl.ok()) return ssl.status();
    return std::make_unique<TlsStream>(kj::mv(fd), *std::move(ssl),
                                       std::move(events));
  });
}

StreamEvents ControlPortImpl::EventsOf(uint64_t id) {
  const std::shared_ptr<LoopInbox> inbox = loop_.inbox();
  return {
      .greeted = [this, inbox,
                  id] { inbox->Post([this, id] { OnGreeted(id); }); },
      .ended = [this, inbox, id] { inbox->Post([this, id] { Forget(id); }); }};
}

void ControlPortImpl::OnGreeted(uint64_t id) {
  table_.SetUse(id, ConnectionTable::Use::kInUse);
  const auto found = accepted_.find(id);
  if (found != accepted_.end()) found->second.greeted->fulfill();
}

void ControlPortImpl::HangUp(uint64_t id, absl::string_view why) {
  const auto found = accepted_.find(id);
  if (found == accepted_.end()) return;
  Refuse(why);
  if (found->second.handle != nullptr) found->second.handle->HangUp();
  found->second.greeted->fulfill();
}

void ControlPortImpl::Forget(uint64_t id) {
  table_.Remove(id);
  accepted_.erase(id);
  open_.store(accepted_.size());
}

void ControlPortImpl::Refuse(absl::string_view why) {
  options_.meters->Add("peer_refused");
  LogWarning("control.accept",
             absl::StrCat("closed a connection to the control port: ", why));
}

void ControlPortImpl::Dial(const NodeId& peer,
                           const placement::Addresses& addresses,
                           absl::Duration timeout, OnDialled on_dialled) {
  loop_.Post([this, peer, timeout,
              address = HostPort(addresses.host, addresses.control_port),
              done = std::move(on_dialled)]() mutable {
    if (closed_) return;
    tasks_->add(Within(loop_, timeout, Connect(peer, address))
                    .catch_([](kj::Exception&& broken) -> StreamResult {
                      return absl::UnavailableError(
                          broken.getDescription().cStr());
                    })
                    .then([done = std::move(done)](StreamResult s) mutable {
                      done(std::move(s));
                    }));
  });
}

kj::Promise<StreamResult> ControlPortImpl::Connect(const NodeId& peer,
                                                   const std::string& address) {
  return DialAddress(loop_.io().getNetwork(), address)
      .then([this, peer](kj::Own<kj::AsyncIoStream> stream)
                -> kj::Promise<StreamResult> {
        TuneTcp(*stream);
        absl::StatusOr<kj::AutoCloseFd> fd = TakeSocket(kj::mv(stream));
        if (!fd.ok()) return StreamResult(fd.status());
        return Secure(kj::mv(*fd), peer.name(), {});
      });
}

}  // namespace

std::unique_ptr<ControlPort> ControlPort::Create(Options options) {
  return std::make_unique<ControlPortImpl>(std::move(options));
}

}  // namespace kdn::rpc
