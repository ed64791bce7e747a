#ifndef KDN_RPC_GATEWAY_SESSION_STATE_H_
#define KDN_RPC_GATEWAY_SESSION_STATE_H_

#include <capnp/capability.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "delivery/node_service.h"
#include "kv/host_memory.h"
#include "rpc/byte_budget.h"
#include "rpc/call_deadline.h"
#include "rpc/connection_table.h"
#include "rpc/event_loop.h"
#include "rpc/gateway/descriptor_desk.h"
#include "rpc/gateway/engine_messages.h"
#include "rpc/gateway/gateway.h"
#include "rpc/gateway/scratch_pool.h"
#include "rpc/kdn.capnp.h"
#include "transfer/admission_gate.h"

namespace kdn::rpc {

using transfer::AdmissionGate;

struct SessionState;

// A connection, as the objects that were opened over it see it. Loop thread
// only.
struct EngineLink {
  uint64_t id = 0;
  bool local = false;    // over a Unix socket
  bool greeted = false;  // the client has said hello
  // Null once the connection has ended.
  EngineMessages* messages = nullptr;
  std::weak_ptr<SessionState> session;  // the last one
  std::shared_ptr<AdmissionGate> sessions;
};

// The parts that all sessions of a gateway share. Created and used on the loop
// thread; only the usage of the budgets may be read on any thread.
struct GatewayState {
  Gateway::Options options;
  delivery::NodeService* node = nullptr;
  EventLoop* loop = nullptr;
  std::shared_ptr<AdmissionGate> sessions;
  // Of clients over the Unix socket, and of clients over TCP.
  std::shared_ptr<AdmissionGate> local_sessions;
  std::shared_ptr<AdmissionGate> remote_sessions;
  std::shared_ptr<AdmissionGate> memory;
  std::shared_ptr<AdmissionGate> regions;
  std::shared_ptr<AdmissionGate> store_bytes;
  std::shared_ptr<AdmissionGate> calibration_bytes;
  std::shared_ptr<ScratchPool> scratch;
  std::shared_ptr<ByteBudget> received;
  std::shared_ptr<ByteBudget> small_received;
  std::shared_ptr<ByteBudget> call_memory;
  ConnectionTable* connections = nullptr;
  // Hangs up on a connection that the table has given up.
  std::function<void(uint64_t connection)> hang_up;
  std::shared_ptr<DescriptorDesk> desk;  // null: no Unix socket

  // The client of this connection has opened something: the connection makes no
  // room for others any more.
  void SetInUse(const EngineLink& link) const {
    connections->SetUse(link.id, ConnectionTable::Use::kInUse);
  }
};

// Memory that an engine maps too. The capability and every node call that uses
// the memory share it, so it stays valid for the node when the client
// disconnects.
struct SharedRegion {
  SharedMemory memory;
  AdmissionGate::Pass in_gateway;
  AdmissionGate::Pass in_session;
  AdmissionGate::Pass descriptor;
};

class SharedMemoryServer final : public wire::SharedMemory::Server {
 public:
  SharedMemoryServer(std::shared_ptr<SharedRegion> region,
                     std::shared_ptr<DescriptorDesk> desk,
                     AdmissionGate::Pass slot)
      : region_(std::move(region)),
        desk_(std::move(desk)),
        slot_(std::move(slot)) {}
  ~SharedMemoryServer() noexcept(false) { desk_->Withdraw(ticket_); }
  kj::Promise<void> ticket(TicketContext context) override;
  kj::Promise<void> size(SizeContext context) override {
    context.getResults().setBytes(region_->memory.size());
    return kj::READY_NOW;
  }
  kj::Maybe<int> getFd() override { return region_->memory.fd(); }
  const std::shared_ptr<SharedRegion>& region() const { return region_; }

 private:
  std::shared_ptr<SharedRegion> region_;
  std::shared_ptr<DescriptorDesk> desk_;
  AdmissionGate::Pass slot_;
  std::string ticket_;  // the last ticket that was issued; empty: none
};

// The places that a session takes; a null one was not free.
struct SessionPlaces {
  AdmissionGate::Pass in_connection;
  AdmissionGate::Pass in_class;  // of clients over the Unix socket, or over TCP
  AdmissionGate::Pass in_gateway;

  bool complete() const { return in_connection && in_class && in_gateway; }
};

// One connected engine. Its Session capability and all objects that were opened
// through it share this state. Loop thread only.
struct SessionState {
  std::shared_ptr<GatewayState> gateway;
  std::shared_ptr<EngineLink> link;
  SessionId id;
  // The Session capability is gone: its leases are released, and no new call
  // may start.
  bool closed = false;
  SessionPlaces places;
  std::shared_ptr<AdmissionGate> regions;
  std::shared_ptr<AdmissionGate> memory;
  std::shared_ptr<AdmissionGate> models;
  std::shared_ptr<AdmissionGate> stores;
  std::shared_ptr<AdmissionGate> store_bytes;
  std::shared_ptr<AdmissionGate> calibrations;  // uploads
  std::shared_ptr<AdmissionGate> small_calls;
  std::shared_ptr<ByteBudget> call_memory;  // its share of the gateway's
  capnp::CapabilityServerSet<wire::SharedMemory> shared_memories;

  EventLoop& loop() const { return *gateway->loop; }
  delivery::NodeService& node() const { return *gateway->node; }
  absl::Status CheckOpen() const {
    if (!closed) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "the session is over: say hello again");
  }
};

// Turns a promise of a plain answer into a promise of an answer or a status,
// for ByDeadline.
template <typename T>
kj::Promise<absl::StatusOr<T>> AnswerOrStatus(kj::Promise<T> promise) {
  return promise.then([](T value) -> absl::StatusOr<T> { return value; });
}

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_SESSION_STATE_H_
