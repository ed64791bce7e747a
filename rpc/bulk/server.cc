#include "rpc/bulk/server.h"

#include <atomic>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/log.h"
#include "rpc/bulk/session.h"
#include "rpc/connection_table.h"
#include "rpc/listener.h"

namespace kdn::rpc {
namespace {

// Connections whose peer has not said hello, in all. All nodes of a cluster may
// be behind one address, and may connect at the same time.
constexpr size_t kSilentMax = 256;

// Sets the name of a node apart from an address.
std::string NameOf(const std::string& node) {
  return absl::StrCat("node ", node);
}

class BulkServerImpl final : public BulkServer,
                             public kj::TaskSet::ErrorHandler {
 public:
  BulkServerImpl(Options options, delivery::PeerService* service)
      : table_({.connections_max = static_cast<size_t>(options.connections_max),
                .silent_max = kSilentMax,
                .silent_per_peer_max = kSilentMax,
                .per_peer_max =
                    static_cast<size_t>(options.connections_per_peer_max),
                .kept_for_local = 0,
                .kept_for_remote = 0}) {
    shared_.options = std::move(options);
    if (shared_.options.introduce == nullptr) {
      shared_.options.introduce = IntroduceByNameOnly(shared_.options.self);
    }
    if (shared_.options.tls != nullptr) {
      shared_.tls = shared_.options.tls->NewSslContext();
    }
    shared_.service = service;
    shared_.loop = &loop_;
    loop_.Run([&] {
      shared_.unreceived =
          std::make_shared<PushRoom>(shared_.options.push_unreceived_max);
    });
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
  Counters counters() const override { return Counters{open_.load()}; }
  void Stop() override {
    if (std::exchange(stopped_, true)) return;
    loop_.Run([&] { tasks_ = nullptr; });
  }

 private:
  void Accept(kj::Own<kj::AsyncIoStream> stream);
  BulkLink LinkOf(uint64_t id);
  // Hangs up on idle connections, which have made room.
  void HangUp(const ConnectionTable::Victims& victims);
  void Forget(uint64_t id) {
    table_.Remove(id);
    connections_.erase(id);
    open_.store(connections_.size());
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
  std::atomic<uint64_t> open_{0};
  uint16_t port_ = 0;
  bool stopped_ = false;
  // Loop thread only.
  ConnectionTable table_;
  std::map<uint64_t, kj::Own<kj::PromiseFulfiller<void>>> connections_;
  uint64_t next_connection_ = 1;
  EventLoop loop_;
  kj::Own<kj::TaskSet> tasks_;
};

void BulkServerImpl::HangUp(const ConnectionTable::Victims& victims) {
  for (const uint64_t victim : victims) {
    const auto found = connections_.find(victim);
    if (found == connections_.end()) continue;
    Refuse("it was silent or idle, and made room for another one");
    found->second->fulfill();
  }
}

BulkLink BulkServerImpl::LinkOf(uint64_t id) {
  return BulkLink{.greeted =
                      [this, id](const std::string& node) {
                        const auto victims = table_.SetPeer(id, NameOf(node));
                        if (victims) HangUp(*victims);
                        return victims.has_value();
                      },
                  .set_busy =
                      [this, id](bool busy) {
                        table_.SetUse(id, busy ? ConnectionTable::Use::kInUse
                                               : ConnectionTable::Use::kIdle);
                      }};
}

void BulkServerImpl::Accept(kj::Own<kj::AsyncIoStream> stream) {
  const uint64_t id = next_connection_++;
  const auto victims =
      table_.Add(id, ConnectionTable::Class::kRemote, PeerOf(*stream));
  if (!victims) return Refuse("too many connections are in use");
  HangUp(*victims);
  auto paf = kj::newPromiseAndFulfiller<void>();
  connections_.emplace(id, kj::mv(paf.fulfiller));
  open_.store(connections_.size());
  auto forget = kj::defer([this, id] { Forget(id); });
  TuneTcp(*stream);
  auto session = kj::heap<BulkSession>(shared_, kj::mv(stream), LinkOf(id));
  auto running = session->Run();
  tasks_->add(running.exclusiveJoin(kj::mv(paf.promise))
                  .attach(kj::mv(session), kj::mv(forget)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<BulkServer>> BulkServer::Start(
    Options options, delivery::PeerService* service) {
  KDN_CHECK(service != nullptr, "a bulk server needs a service");
  auto server = std::make_unique<BulkServerImpl>(std::move(options), service);
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace kdn::rpc
