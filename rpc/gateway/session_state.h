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

// What all sessions of a gateway share. Made and used on the loop thread; the
// budgets count atomically, so that usage can be read anywhere.
struct GatewayState {
  Gateway::Options options;
  delivery::NodeService* node = nullptr;
  EventLoop* loop = nullptr;
  std::shared_ptr<AdmissionGate> sessions;
  std::shared_ptr<AdmissionGate> memory;
  std::shared_ptr<AdmissionGate> store_bytes;
  std::shared_ptr<ScratchPool> scratch;
  std::shared_ptr<DescriptorDesk> desk;  // null: no Unix socket
};

// Memory an engine maps too. Shared by the capability and by every node call
// that uses it, so a client that goes away takes no memory from under the node.
struct SharedRegion {
  SharedMemory memory;
  AdmissionGate::Pass in_gateway;
  AdmissionGate::Pass in_session;
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
  std::string ticket_;  // the one outstanding, if any
};

// One connected engine, shared by its Session capability and everything opened
// through it. Loop thread only. `closed` once the Session capability is gone:
// nothing new may start then, and its leases are released.
struct SessionState {
  std::shared_ptr<GatewayState> gateway;
  SessionId id;
  bool local = false;  // over a Unix socket
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

// The node's plain answer as one that may also be late or missing.
template <typename T>
kj::Promise<absl::StatusOr<T>> AnswerOrStatus(kj::Promise<T> promise) {
  return promise.then([](T value) -> absl::StatusOr<T> { return value; });
}

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_SESSION_STATE_H_
