#ifndef KDN_ACTORS_NODE_SERVICES_H_
#define KDN_ACTORS_NODE_SERVICES_H_

#include <atomic>
#include <caf/actor_system.hpp>

#include "actors/node_context.h"
#include "delivery/node_service.h"
#include "delivery/peer_transport.h"

namespace kdn::actors {

// The node as the gateway sees it (NodeService) and as the bulk server sees it
// (PeerService). Turns each call into one actor or one actor message. Its only
// state is the session counter. Thread-safe.
class NodeServices final : public delivery::NodeService,
                           public delivery::PeerService {
 public:
  NodeServices(caf::actor_system* system, NodeContext* node)
      : system_(system), node_(node) {}

  void BeginStore(
      delivery::StoreRequest request,
      delivery::Done<absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>>
          done) override;
  void Lookup(
      std::vector<ChunkRef> chunks, Namespace ns, absl::Time deadline,
      delivery::Done<absl::StatusOr<std::vector<LookupResult>>> done) override;
  void Retrieve(delivery::RetrieveRequest request, OnLayer on_layer,
                delivery::Done<std::vector<ChunkOutcome>> done) override;
  void Pin(std::vector<ChunkRef> chunks, Namespace ns, SessionId session,
           absl::Time expires, absl::Time deadline,
           delivery::Done<std::vector<absl::Status>> done) override;
  void Unpin(std::vector<ChunkRef> chunks, Namespace ns, SessionId session,
             absl::Time deadline,
             delivery::Done<std::vector<absl::Status>> done) override;
  void Remove(std::vector<ChunkRef> chunks, Namespace ns, SessionId session,
              absl::Time deadline,
              delivery::Done<std::vector<absl::Status>> done) override;
  void StoreCalibration(
      std::vector<std::byte> bytes, absl::Time deadline,
      delivery::Done<absl::StatusOr<CalibrationReceipt>> done) override;
  void Calibrations(
      delivery::Done<absl::StatusOr<std::vector<CalibrationEntry>>> done)
      override;
  absl::StatusOr<std::unique_ptr<delivery::CalibrationRun>> BeginCalibration(
      const ModelSpec& model) override;
  SessionId OpenSession() override;
  void CloseSession(SessionId session) override;
  void Status(absl::Time deadline,
              delivery::Done<std::vector<NodeStatus>> done) override;
  NodeId self() const override { return node_->self(); }

  void ReadCalibration(const codec::CalibrationId& id,
                       delivery::Done<absl::StatusOr<FileBytes>> done) override;
  void ReadLocal(const ChunkRef& ref, const Namespace& ns, absl::Time deadline,
                 delivery::Done<absl::StatusOr<Held>> done) override;
  void ReserveLocal(
      const ChunkRef& ref, size_t bytes, absl::Time deadline,
      delivery::Done<absl::StatusOr<std::shared_ptr<storage::ArenaBlock>>> done)
      override;
  void CommitLocal(
      const ChunkRef& ref, std::shared_ptr<storage::ArenaBlock> block,
      Durability durability, absl::Time expires, absl::Time deadline,
      delivery::Done<absl::StatusOr<delivery::PushReceipt>> done) override;

 private:
  void Lease(LeaseOp op, std::vector<ChunkRef> chunks, const Namespace& ns,
             SessionId session, absl::Time expires, absl::Time deadline,
             delivery::Done<std::vector<absl::Status>> done);
  // The storage actor of this node that keeps the chunk's shard.
  StorageActor StorageFor(const ChunkRef& ref) const;

  caf::actor_system* const system_;
  NodeContext* const node_;
  std::atomic<uint64_t> sessions_{0};
};

}  // namespace kdn::actors

#endif  // KDN_ACTORS_NODE_SERVICES_H_
