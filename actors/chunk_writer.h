#ifndef KDN_ACTORS_CHUNK_WRITER_H_
#define KDN_ACTORS_CHUNK_WRITER_H_

#include <caf/actor_system.hpp>
#include <memory>

#include "actors/node_context.h"
#include "codec/encoder.h"
#include "delivery/node_service.h"
#include "delivery/store_plan.h"

namespace kdn::actors {

// One store, which encodes its layers on the node's worker pool. The tasks on
// the pool share State, so that they finish safely when the engine goes away
// and the writer is destroyed.
class NodeChunkWriter final : public delivery::ChunkWriter {
 public:
  // REQUIRES: `block` has room for codec::ObjectBytesMax of the request's
  // header, and lies in the memory that `built` names.
  static absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>> Create(
      caf::actor_system* system, NodeContext* node,
      delivery::StoreRequest request,
      std::shared_ptr<storage::ArenaBlock> block, delivery::BuildPlace built,
      codec::LosslessForm form);

  void PutLayers(int first, const KvView& kv,
                 delivery::Done<absl::Status> done) override;
  void Commit(delivery::Done<absl::StatusOr<StoreReceipt>> done) override;

 private:
  struct State {
    caf::actor_system* system;
    NodeContext* node;
    delivery::StoreRequest request;
    std::shared_ptr<storage::ArenaBlock> block;
    delivery::BuildPlace built;
    codec::ObjectEncoder encoder;
    RequesterId requester;
  };
  explicit NodeChunkWriter(std::shared_ptr<State> state)
      : state_(std::move(state)) {}
  static absl::Status Encode(State& state, int first, const KvView& kv);
  static void FinishAndSend(State& state, Reply<StoreReceipt> reply);

  const std::shared_ptr<State> state_;
};

// The header of the object that the request asks for, without the calibration.
// INVALID_ARGUMENT when the request contradicts itself or its model.
absl::StatusOr<codec::ObjectHeader> HeaderOf(
    const delivery::StoreRequest& request);

}  // namespace kdn::actors

#endif  // KDN_ACTORS_CHUNK_WRITER_H_
