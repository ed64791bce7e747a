#ifndef KDN_RPC_GATEWAY_STORE_STREAM_H_
#define KDN_RPC_GATEWAY_STORE_STREAM_H_

#include <memory>
#include <utility>

#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// One chunk on its way in. The node encodes kLayersAtOnce of its layers at a
// time; the others queue up here. Layers are read where they lie: in the
// request message or in the engine's region. Cap'n Proto frees a message once
// its call is answered, so a layer is answered only when the node is done with
// it, deadline or not; commit is the call that ends by the deadline. At the
// deadline what the store holds is let go of, whether its client says anything
// or not. Loop thread only.
class StoreStreamServer final : public wire::StoreStream::Server {
 public:
  struct Budget {
    AdmissionGate::Pass slot;
    AdmissionGate::Pass in_session;
    AdmissionGate::Pass in_gateway;
  };
  StoreStreamServer(std::shared_ptr<SessionState> session,
                    std::unique_ptr<delivery::ChunkWriter> stream,
                    const KvShape& shape, CallDeadline deadline,
                    std::shared_ptr<SharedRegion> region, Budget budget)
      : session_(std::move(session)),
        stream_(std::move(stream)),
        shape_(shape),
        deadline_(deadline),
        region_(std::move(region)),
        budget_(std::move(budget)),
        turns_(FirstTurns()),
        expiry_(session_->loop()
                    .At(deadline.at)
                    .then([this] { Expire(); })
                    .eagerlyEvaluate(nullptr)) {}

  kj::Promise<void> layer(LayerContext context) override;
  kj::Promise<void> commit(CommitContext context) override;

 private:
  // So that one store leaves threads of a large node to the others, and what
  // its messages hold is bounded.
  static constexpr int kLayersAtOnce = 4;
  static kj::Array<kj::Promise<void>> FirstTurns();

  // Resolves when the call kLayersAtOnce before this one is done; `done` is to
  // be fulfilled when this one is (dropping it spoils the store).
  struct Turn {
    kj::Promise<void> mine;
    kj::Own<kj::PromiseFulfiller<void>> done;
  };
  Turn TakeTurn(int layer);
  kj::Promise<void> PutLayer(int layer, LayerContext context);
  kj::Promise<absl::StatusOr<StoreReceipt>> CommitNow();
  void Expire();
  // Where the layer of this call lies. INVALID_ARGUMENT when it is outside its
  // memory.
  absl::StatusOr<KvView> ViewOf(
      int layer, wire::StoreStream::LayerParams::Reader params) const;

  std::shared_ptr<SessionState> session_;
  // Shared with calls under way: the node's stream outlives this object until
  // they are done.
  std::shared_ptr<delivery::ChunkWriter> stream_;
  KvShape shape_;
  CallDeadline deadline_;
  std::shared_ptr<SharedRegion> region_;
  Budget budget_;
  int layers_ = 0;  // that calls brought
  bool committed_ = false;
  absl::Status error_;  // the first; commit reports it
  kj::Array<kj::Promise<void>> turns_;
  kj::Promise<void> expiry_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_STORE_STREAM_H_
