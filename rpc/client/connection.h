#ifndef KDN_RPC_CLIENT_CONNECTION_H_
#define KDN_RPC_CLIENT_CONNECTION_H_

#include <capnp/rpc-twoparty.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kv/host_memory.h"
#include "rpc/client/client.h"
#include "rpc/client/loop.h"
#include "rpc/wire.h"

namespace kdn::rpc {

// The gateway answers a call by its deadline. The client waits this much
// longer.
inline constexpr absl::Duration kAnswerGrace = absl::Milliseconds(100);

class RegionImpl;

// One connection to a gateway, and the session on it. All objects that are made
// through the connection share it; connection and session end with the last of
// these objects. Confined to the thread of its loop.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  static absl::StatusOr<std::shared_ptr<Connection>> Open(
      std::string_view address, const ConnectOptions& options);

  ClientLoop& loop() { return *loop_; }
  wire::Session::Client& session() { return *session_; }
  const NodeInfo& node() const { return node_; }
  SessionId session_id() const { return session_id_; }
  bool connected() const { return *connected_; }
  bool shares_memory() const { return shares_memory_; }

  // Sends a request and waits for the answer. An answer whose status is not ok
  // is returned as that status.
  template <typename Params, typename Results>
  absl::StatusOr<capnp::Response<Results>> Call(
      capnp::Request<Params, Results> request, absl::Duration timeout);

  absl::StatusOr<std::unique_ptr<Region>> OpenMemory(size_t bytes,
                                                     absl::Duration timeout);
  // The shared region that contains [begin, begin + bytes), or null.
  const RegionImpl* RegionAround(const std::byte* begin, uint64_t bytes) const;
  void Forget(const RegionImpl* region);

 private:
  Connection() = default;
  absl::Status Hello(const ConnectOptions& options);
  absl::StatusOr<std::unique_ptr<Region>> OpenShared(size_t bytes,
                                                     absl::Duration timeout);
  // Whether the failure of OpenShared means that no region can be shared.
  bool MeansUnshared(const absl::Status& status) const;

  std::shared_ptr<ClientLoop> loop_;
  std::shared_ptr<bool> connected_ = std::make_shared<bool>(true);
  kj::Own<kj::AsyncIoStream> stream_;
  kj::Own<capnp::TwoPartyVatNetwork> network_;
  kj::Own<capnp::RpcSystem<capnp::rpc::twoparty::VatId>> rpc_;
  kj::Promise<void> watching_ = nullptr;
  std::optional<wire::Session::Client> session_;
  NodeInfo node_;
  SessionId session_id_;
  std::vector<const RegionImpl*> regions_;
  bool shares_memory_ = false;  // true until sharing has failed
};

class RegionImpl final : public Region {
 public:
  RegionImpl(std::shared_ptr<Connection> connection,
             wire::SharedMemory::Client capability, SharedMemory memory)
      : connection_(std::move(connection)),
        capability_(kj::mv(capability)),
        memory_(std::move(memory)) {}
  ~RegionImpl() noexcept override { connection_->Forget(this); }
  bool shared() const override { return true; }
  std::byte* data() const override { return memory_.data(); }
  size_t size() const override { return memory_.size(); }
  wire::SharedMemory::Client capability() const {
    return const_cast<RegionImpl*>(this)->capability_;
  }
  bool Holds(const std::byte* begin, uint64_t bytes) const {
    return begin >= data() && begin <= data() + size() &&
           bytes <= static_cast<uint64_t>(data() + size() - begin);
  }

 private:
  std::shared_ptr<Connection> connection_;
  wire::SharedMemory::Client capability_;
  SharedMemory memory_;
};

class UnsharedRegion final : public Region {
 public:
  explicit UnsharedRegion(PrivateMemory memory) : memory_(std::move(memory)) {}
  bool shared() const override { return false; }
  std::byte* data() const override { return memory_.data(); }
  size_t size() const override { return memory_.size(); }

 private:
  PrivateMemory memory_;
};

template <typename Params, typename Results>
absl::StatusOr<capnp::Response<Results>> Connection::Call(
    capnp::Request<Params, Results> request, absl::Duration timeout) {
  auto answer =
      loop_->Wait(kj::evalNow([&]() -> kj::Promise<capnp::Response<Results>> {
                    return request.send();
                  }),
                  timeout + kAnswerGrace);
  if (absl::IsUnavailable(answer.status())) *connected_ = false;
  if (!answer.ok()) return answer.status();
  if (absl::Status status = FromWire(answer->getStatus()); !status.ok()) {
    return status;
  }
  return answer;
}

}  // namespace kdn::rpc

#endif  // KDN_RPC_CLIENT_CONNECTION_H_
