#ifndef KDN_RPC_GATEWAY_SESSION_H_
#define KDN_RPC_GATEWAY_SESSION_H_

#include <memory>

#include "rpc/gateway/calibration_upload.h"
#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// The bootstrap capability of one connection: answers hello and makes a
// session. A connection has one session at a time.
class KdnServer final : public wire::Kdn::Server {
 public:
  KdnServer(std::shared_ptr<GatewayState> gateway,
            std::shared_ptr<EngineLink> link)
      : gateway_(std::move(gateway)), link_(std::move(link)) {}
  kj::Promise<void> hello(HelloContext context) override;

 private:
  // OK when the client may have a session.
  absl::Status Judge(wire::Kdn::HelloParams::Reader params) const;
  // The places of the sessions of TCP, or of the Unix socket.
  AdmissionGate& SessionsOfClass() const;
  SessionPlaces TakePlaces() const;
  absl::Status NoPlace() const;
  // Makes room for another session if a client has opened nothing in its own.
  // `of_class`: only a client that came over the same kind of socket.
  bool MakeRoom(bool of_class);
  std::shared_ptr<GatewayState> gateway_;
  std::shared_ptr<EngineLink> link_;
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
  kj::Promise<void> storeCalibration(StoreCalibrationContext context) override;
  kj::Promise<void> calibrations(CalibrationsContext context) override;

 private:
  absl::StatusOr<CalibrationUploadServer::Budget> BudgetFor(
      uint64_t bytes) const;
  absl::StatusOr<std::shared_ptr<SharedRegion>> MakeRegion(uint64_t bytes);
  std::shared_ptr<SessionState> state_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_SESSION_H_
