#ifndef KDN_RPC_GATEWAY_SESSION_STATE_H_
#define KDN_RPC_GATEWAY_SESSION_STATE_H_

#include <capnp/capability.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "delivery/node_service.h"
#include "kv/host_memory.h"
#include "rpc/call_deadline.h"
#include "rpc/event_loop.h"
#include "rpc/gateway/descriptor_desk.h"
#include "rpc/gateway/gateway.h"
#include "rpc/gateway/scratch_pool.h"
#include "rpc/kdn.capnp.h"
#include "transfer/admission_gate.h"

namespace kdn::rpc {

using transfer::AdmissionGate;

// The parts that all sessions of a gateway share. Created and used on the loop
// thread; only the usage of the budgets may be read on any thread.
struct GatewayState {
  Gateway::Options options;
  delivery::NodeService* node = nullptr;
  EventLoop* loop = nullptr;
  std::shared_ptr<AdmissionGate> sessions;
  std::shared_ptr<AdmissionGate> memory;
  std::shared_ptr<AdmissionGate> regions;
  std::shared_ptr<AdmissionGate> store_bytes;
  std::shared_ptr<ScratchPool> scratch;
  std::shared_ptr<DescriptorDesk> desk;  // null: no Unix socket
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

// One connected engine. Its Session capability and all objects that were opened
// through it share this state. Loop thread only.
struct SessionState {
  std::shared_ptr<GatewayState> gateway;
  SessionId id;
  bool local = false;  // over a Unix socket
  // The Session capability is gone: its leases are released, and no new call
  // may start.
  bool closed = false;
  AdmissionGate::Pass slot;
  std::shared_ptr<AdmissionGate> regions;
  std::shared_ptr<AdmissionGate> memory;
  std::shared_ptr<AdmissionGate> models;
  std::shared_ptr<AdmissionGate> stores;
  std::shared_ptr<AdmissionGate> store_bytes;
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
