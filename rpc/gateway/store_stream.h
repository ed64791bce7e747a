#ifndef KDN_RPC_GATEWAY_STORE_STREAM_H_
#define KDN_RPC_GATEWAY_STORE_STREAM_H_

#include <memory>
#include <utility>

#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// A store of one chunk. The node encodes kLayersAtOnce of its layers at a time;
// further layers wait here. The node reads a layer where it lies: in the
// request message or in the engine's region. Cap'n Proto frees a message when
// its call is answered, so a layer is answered only when the node is done with
// it, even after the deadline. Only commit ends by the deadline. At the
// deadline the store releases its region and budgets, whatever the client does.
// Loop thread only.
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
  // Bounds the threads of the node, and the memory for messages, that one store
  // takes.
  static constexpr int kLayersAtOnce = 4;
  static kj::Array<kj::Promise<void>> FirstTurns();

  // `mine` resolves when the layer kLayersAtOnce before this one is done. The
  // caller fulfils `done` when this layer is done; dropping `done` makes commit
  // fail.
  struct Turn {
    kj::Promise<void> mine;
    kj::Own<kj::PromiseFulfiller<void>> done;
  };
  Turn TakeTurn(int layer);
  kj::Promise<void> PutLayer(int layer, LayerContext context);
  kj::Promise<absl::StatusOr<StoreReceipt>> CommitNow();
  void Expire();
  // A view of the layer of this call. INVALID_ARGUMENT when the layer does not
  // lie inside its message or region.
  absl::StatusOr<KvView> ViewOf(
      int layer, wire::StoreStream::LayerParams::Reader params) const;

  std::shared_ptr<SessionState> session_;
  // Calls in progress share the node's stream, so it lives until they are done,
  // also without this object.
  std::shared_ptr<delivery::ChunkWriter> stream_;
  KvShape shape_;
  CallDeadline deadline_;
  std::shared_ptr<SharedRegion> region_;
  Budget budget_;
  int layers_ = 0;  // layers that have come
  bool committed_ = false;
  absl::Status error_;  // the first error; commit reports it
  kj::Array<kj::Promise<void>> turns_;
  kj::Promise<void> expiry_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_STORE_STREAM_H_
