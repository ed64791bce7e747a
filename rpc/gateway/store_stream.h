#ifndef KDN_RPC_GATEWAY_STORE_STREAM_H_
#define KDN_RPC_GATEWAY_STORE_STREAM_H_

#include <memory>
#include <utility>

#include "rpc/gateway/session_state.h"
#include "rpc/kdn.capnp.h"

namespace kdn::rpc {

// A store of one chunk. The layers of each call are cut into runs of about
// kRunBytes. The node encodes kRunsAtOnce of a store's runs at a time; further
// runs wait here. The node reads a layer where it lies: in the request message
// or in the engine's region. Cap'n Proto frees a message when its call is
// answered, so a call is answered only when the node is done with its layers,
// even after the deadline. Only commit ends by the deadline. At the
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
  static constexpr int kRunsAtOnce = 4;
  // A run is one task of the node's workers. Starting a task takes as long as
  // copying some 100 KB.
  static constexpr size_t kRunBytes = 1u << 20;
  static kj::Array<kj::Promise<void>> FirstTurns();

  // `mine` resolves when the run kRunsAtOnce before this one is done. The
  // caller fulfils `done` when this run is done; dropping `done` makes commit
  // fail.
  struct Turn {
    kj::Promise<void> mine;
    kj::Own<kj::PromiseFulfiller<void>> done;
  };
  Turn TakeTurn();
  // Lets the node encode `count` layers from `first` on, when it is their turn.
  // `call_first` is the first layer of their call.
  kj::Promise<void> PutRun(int call_first, int first, int count,
                           LayerContext context);
  kj::Promise<void> PutNow(int call_first, int first, int count,
                           LayerContext context);
  kj::Promise<absl::StatusOr<StoreReceipt>> CommitNow();
  void Expire();
  // A view of the layers of this call, of which `first` is the first.
  // INVALID_ARGUMENT when they do not lie inside their message or region.
  absl::StatusOr<KvView> ViewOf(
      int first, wire::StoreStream::LayerParams::Reader params) const;

  std::shared_ptr<SessionState> session_;
  // Calls in progress share the node's stream, so it lives until they are done,
  // also without this object.
  std::shared_ptr<delivery::ChunkWriter> stream_;
  KvShape shape_;
  CallDeadline deadline_;
  std::shared_ptr<SharedRegion> region_;
  Budget budget_;
  int layers_ = 0;  // layers that have come
  int runs_ = 0;    // runs that have taken a turn
  bool committed_ = false;
  absl::Status error_;  // the first error; commit reports it
  kj::Array<kj::Promise<void>> turns_;
  kj::Promise<void> expiry_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_STORE_STREAM_H_
