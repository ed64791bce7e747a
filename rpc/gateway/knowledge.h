#ifndef KDN_RPC_GATEWAY_KNOWLEDGE_H_
#define KDN_RPC_GATEWAY_KNOWLEDGE_H_

#include <memory>
#include <utility>
#include <vector>

#include "rpc/gateway/retrieval.h"
#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// Serves the chunks of one tenant and one model to one engine: checks a
// request, asks the node, encodes the answer. Loop thread only.
class KnowledgeServer final : public wire::Knowledge::Server {
 public:
  KnowledgeServer(std::shared_ptr<SessionState> session, Namespace ns,
                  std::shared_ptr<const ModelSpec> model,
                  const ModelFingerprint& fingerprint, AdmissionGate::Pass slot)
      : session_(std::move(session)),
        ns_(std::move(ns)),
        model_(std::move(model)),
        fingerprint_(fingerprint),
        slot_(std::move(slot)) {}

  // Most memory for calls of one session: a quarter of the gateway's, and at
  // least that of the largest call.
  static uint64_t CallMemoryOfSession(const Gateway::Options& options);
  // Most memory for calls of one session that are small enough to need no room
  // in the gateway's budget.
  static uint64_t SmallCallsOfSession();

  kj::Promise<void> lookup(LookupContext context) override;
  kj::Promise<void> store(StoreContext context) override;
  kj::Promise<void> retrieve(RetrieveContext context) override;
  kj::Promise<void> pin(PinContext context) override;
  kj::Promise<void> unpin(UnpinContext context) override;
  kj::Promise<void> remove(RemoveContext context) override;
  kj::Promise<void> calibrate(CalibrateContext context) override;

 private:
  using Statuses = std::vector<absl::Status>;
  using StatusesDone = delivery::Done<Statuses>;
  // The room that a call takes in the budgets of its session and of the
  // gateway.
  struct Room {
    AdmissionGate::Pass in_session;
    AdmissionGate::Pass in_gateway;  // null for a small call
  };
  // The checked parameters of lookup, pin, unpin and remove, and the room in
  // the budget that the call takes.
  struct Asked {
    std::vector<ChunkRef> chunks;
    CallDeadline deadline;
    Room memory;
  };
  // Waits for room for the chunks, then copies them and releases the message.
  template <typename Context>
  kj::Promise<absl::StatusOr<Asked>> Parse(Context context) const;
  // Room for what a call takes in this process.
  kj::Promise<absl::StatusOr<Room>> Reserve(uint64_t chunks, uint64_t positions,
                                            kj::TimePoint deadline) const;
  absl::Status CheckChunkCount(uint64_t chunks) const;
  kj::Promise<void> Lookup(LookupContext context, Asked asked);
  template <typename Context, typename Ask>
  kj::Promise<void> AskForStatuses(Context context, const char* what, Ask ask);
  template <typename Context, typename Ask>
  kj::Promise<void> AnswerStatuses(Context context, const char* what,
                                   Asked asked, Ask& ask);

  // A callback that calls `done`, and that releases the new leases if the
  // session has ended meanwhile.
  StatusesDone ReleasedIfLate(StatusesDone done) const;

  // The region of this session that a client's capability means.
  kj::Promise<absl::StatusOr<std::shared_ptr<SharedRegion>>> RegionOf(
      wire::SharedMemory::Client memory, kj::TimePoint deadline) const;
  kj::Promise<void> BeginStore(StoreContext context,
                               delivery::StoreRequest request,
                               CallDeadline deadline,
                               std::shared_ptr<SharedRegion> region);
  // UNIMPLEMENTED for a destination that only a newer client knows.
  static absl::Status CheckDestination(
      wire::RetrieveRequest::Destination::Reader destination, bool has_sink);
  absl::StatusOr<RetrieveCall> ParseRetrieve(
      wire::RetrieveRequest::Reader request,
      std::shared_ptr<SharedRegion> region) const;
  // The number of positions of all chunks. INVALID_ARGUMENT for more chunks or
  // positions than a call may name; nothing is copied.
  absl::StatusOr<uint64_t> CountPositions(
      wire::RetrieveRequest::Reader request) const;
  kj::Promise<void> RetrieveInto(RetrieveContext context,
                                 std::shared_ptr<SharedRegion> region,
                                 CallDeadline deadline);
  kj::Promise<void> Deliver(RetrieveContext context, RetrieveCall call,
                            kj::Maybe<wire::LayerSink::Client> sink,
                            CallDeadline deadline);

  std::shared_ptr<SessionState> session_;
  Namespace ns_;
  std::shared_ptr<const ModelSpec> model_;
  ModelFingerprint fingerprint_;
  AdmissionGate::Pass slot_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_KNOWLEDGE_H_
