#ifndef KDN_RPC_GATEWAY_SESSION_H_
#define KDN_RPC_GATEWAY_SESSION_H_

#include <memory>

#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// The bootstrap capability of one connection: answers hello and makes a
// session.
class KdnServer final : public wire::Kdn::Server {
 public:
  // `local`: the connection is a Unix socket, over which descriptors can be
  // sent. An accepted hello sets `greeted`.
  KdnServer(std::shared_ptr<GatewayState> gateway, bool local,
            std::shared_ptr<bool> greeted)
      : gateway_(std::move(gateway)),
        local_(local),
        greeted_(std::move(greeted)) {}
  kj::Promise<void> hello(HelloContext context) override;

 private:
  std::shared_ptr<GatewayState> gateway_;
  bool local_;
  std::shared_ptr<bool> greeted_;
};

// One engine's session. Its end releases the engine's leases.
class SessionServer final : public wire::Session::Server {
 public:
  explicit SessionServer(std::shared_ptr<SessionState> state)
      : state_(std::move(state)) {}
  ~SessionServer() noexcept(false);
  kj::Promise<void> open(OpenContext context) override;
  kj::Promise<void> openMemory(OpenMemoryContext context) override;
  kj::Promise<void> info(InfoContext context) override;
  kj::Promise<void> status(StatusContext context) override;

 private:
  absl::StatusOr<std::shared_ptr<SharedRegion>> MakeRegion(uint64_t bytes);
  std::shared_ptr<SessionState> state_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_SESSION_H_
