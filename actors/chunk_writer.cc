#include "actors/chunk_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "actors/store_actor.h"
#include "codec/format/stream_layout.h"

namespace kdn::actors {

absl::StatusOr<codec::ObjectHeader> HeaderOf(
    const delivery::StoreRequest& request) {
  if (absl::Status status = Validate(*request.model); !status.ok()) {
    return status;
  }
  if (absl::Status status = Validate(request.identity); !status.ok()) {
    return status;
  }
  if (request.identity.fingerprint != FingerprintOf(*request.model)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the chunk's fingerprint ", ShortHex(request.identity.fingerprint),
        " is not the fingerprint of the model that the store describes, ",
        ShortHex(FingerprintOf(*request.model))));
  }
  if (codec::HasTransformCoded(request.levels) &&
      request.model->head_dim > codec::kTransformDimMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model's head_dim is ", request.model->head_dim,
                     "; base, base+1, base+2 and archive take at most ",
                     codec::kTransformDimMax));
  }
  return codec::ObjectHeader{
      request.identity,
      ShapeOf(*request.model, static_cast<int>(request.identity.tokens.size())),
      request.model->rope,
      request.positions,
      request.levels,
      codec::CalibrationId(),
      request.depth};
}

absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>> NodeChunkWriter::Create(
    caf::actor_system* system, NodeContext* node,
    delivery::StoreRequest request, std::shared_ptr<storage::ArenaBlock> block,
    delivery::BuildPlace built, codec::LosslessForm form) {
  absl::StatusOr<codec::ObjectHeader> header = HeaderOf(request);
  if (!header.ok()) return header.status();
  std::shared_ptr<const codec::Calibration> calibration;
  if (codec::HasTransformCoded(header->levels)) {
    calibration = node->calibrations.ForModel(header->identity.fingerprint,
                                              codec::GeometryOf(header->shape));
  }
  if (header->levels.Has(Level::kArchive) && calibration->joint_heads() == 0) {
    return absl::FailedPreconditionError(
        "the level archive needs a calibration of the model that codes K and V "
        "together, and this node has none: make one with `kdn codec calibrate "
        "--store`");
  }
  absl::StatusOr<codec::ObjectEncoder> encoder = codec::ObjectEncoder::Create(
      *std::move(header), std::move(calibration), block->bytes(), form);
  if (!encoder.ok()) return encoder.status();
  const RequesterId requester = node->pool.NextRequester();
  return std::unique_ptr<delivery::ChunkWriter>(
      new NodeChunkWriter(std::make_shared<State>(
          State{system, node, std::move(request), std::move(block), built,
                *std::move(encoder), requester})));
}

void NodeChunkWriter::PutLayers(int first, const KvView& kv,
                                delivery::Done<absl::Status> done) {
  state_->node->pool.Post(
      transfer::WorkOrder{WorkClass::kWrite, state_->requester, first},
      [state = state_, first, kv, done = std::move(done)]() mutable {
        done(Encode(*state, first, kv));
      });
}

absl::Status NodeChunkWriter::Encode(State& state, int first,
                                     const KvView& kv) {
  for (int i = 0; i < kv.shape().layers; ++i) {
    if (state.node->clock->Now() >= state.request.deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "layer ", first + i, " was not encoded by the deadline"));
    }
    if (absl::Status s = state.encoder.EncodeLayer(first + i, kv.Layer(i));
        !s.ok()) {
      return s;
    }
  }
  state.node->meters().Add("engine_bytes_in", kv.shape().bytes());
  return absl::OkStatus();
}

void NodeChunkWriter::Commit(
    delivery::Done<absl::StatusOr<StoreReceipt>> done) {
  state_->node->pool.Post(
      transfer::WorkOrder{WorkClass::kWrite, state_->requester, 0},
      [state = state_, reply = Reply<StoreReceipt>::To(std::move(done))] {
        FinishAndSend(*state, reply);
      });
}

void NodeChunkWriter::FinishAndSend(State& state, Reply<StoreReceipt> reply) {
  absl::StatusOr<codec::ObjectEncoder::Finished> finished =
      state.encoder.Finish();
  if (!finished.ok()) return reply(finished.status());
  state.block->ShrinkTo(finished->bytes);
  const ChunkRef ref{finished->key};
  storage::ObjectInfo info;
  info.key = finished->key;
  info.shard = state.node->view.Get()->ShardOf(ref);
  info.ns = state.request.identity.ns.name();
  info.version = finished->version;
  info.bytes = finished->bytes;
  info.levels = state.request.levels.bits();
  info.depth = state.request.depth;
  const absl::Time expires = state.request.ttl > absl::ZeroDuration()
                                 ? state.node->clock->Now() + state.request.ttl
                                 : absl::InfinitePast();
  state.system->spawn(
      MakeStoreActor, state.node,
      StoreJob{ref, std::move(info), std::move(state.block), state.built,
               state.request.durability, expires, state.request.deadline,
               state.request.session, std::move(reply)});
}

}  // namespace kdn::actors
