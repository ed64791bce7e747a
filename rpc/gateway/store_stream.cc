#include "rpc/gateway/store_stream.h"

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "rpc/gateway/wire.h"
#include "rpc/wire.h"

namespace kdn::rpc {

absl::StatusOr<KvView> StoreStreamServer::ViewOf(
    int layer, wire::StoreStream::LayerParams::Reader params) const {
  const auto bytes = params.getBytes();
  const std::byte* memory =
      region_ == nullptr ? reinterpret_cast<const std::byte*>(bytes.begin())
                         : region_->memory.data();
  const uint64_t size =
      region_ == nullptr ? bytes.size() : region_->memory.size();
  KvShape shape = shape_;
  shape.layers = 1;
  const KvStrides strides = FromWire(params.getStrides());
  if (absl::Status status =
          ValidateInside(shape, strides, params.getOffset(), size);
      !status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("layer ", layer, ": ", status.message()));
  }
  return KvView(memory + params.getOffset(), shape, strides);
}

kj::Array<kj::Promise<void>> StoreStreamServer::FirstTurns() {
  auto turns = kj::heapArrayBuilder<kj::Promise<void>>(kLayersAtOnce);
  for (int i = 0; i < kLayersAtOnce; ++i) turns.add(kj::READY_NOW);
  return turns.finish();
}

StoreStreamServer::Turn StoreStreamServer::TakeTurn(int layer) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  kj::Promise<void>& last = turns_[layer % kLayersAtOnce];
  Turn turn{kj::mv(last), kj::mv(paf.fulfiller)};
  last = kj::mv(paf.promise);
  return turn;
}

kj::Promise<void> StoreStreamServer::layer(LayerContext context) {
  if (committed_) return kj::READY_NOW;  // not part of the store
  if (layers_ == shape_.layers) {
    if (error_.ok()) {
      error_ = absl::InvalidArgumentError(
          absl::StrCat("too many layers: the model has ", shape_.layers));
    }
    return kj::READY_NOW;
  }
  const int layer = layers_++;
  // No allowCancellation: the node reads the layer from this call's message,
  // which lives exactly as long as the call, also when the client hangs up.
  Turn turn = TakeTurn(layer);
  return turn.mine
      .then([this, layer, context] { return PutLayer(layer, context); })
      .then([done = kj::mv(turn.done)]() mutable { done->fulfill(); });
}

kj::Promise<void> StoreStreamServer::PutLayer(int layer, LayerContext context) {
  if (error_.ok()) error_ = session_->CheckOpen();
  if (!error_.ok()) return kj::READY_NOW;
  const absl::StatusOr<KvView> view = ViewOf(layer, context.getParams());
  if (!view.ok()) {
    error_ = view.status();
    return kj::READY_NOW;
  }
  auto expected = session_->loop().Expect<absl::Status>(stream_, /*lent=*/true);
  stream_->PutLayer(
      layer, *view,
      [region = region_, done = std::move(expected.done)](
          absl::Status status) mutable { done(std::move(status)); });
  return expected.promise.then([this](absl::Status status) {
    if (error_.ok()) error_ = std::move(status);
  });
}

void StoreStreamServer::Expire() {
  if (error_.ok()) {
    error_ = absl::DeadlineExceededError("the store's deadline passed");
  }
  // A call in progress holds the node's stream and the region until it is done.
  stream_ = nullptr;
  region_ = nullptr;
  budget_ = Budget{};
}

kj::Promise<void> StoreStreamServer::commit(CommitContext context) {
  context.allowCancellation();
  if (committed_) {
    ToWire(absl::FailedPreconditionError("the store was committed before"),
           context.getResults().initStatus());
    return kj::READY_NOW;
  }
  committed_ = true;
  using Receipt = absl::StatusOr<StoreReceipt>;
  auto committing = kj::joinPromises(kj::mv(turns_))
                        .then([this] { return CommitNow(); },
                              [](kj::Exception&&) -> kj::Promise<Receipt> {
                                return Receipt(absl::CancelledError(
                                    "a layer of the store was cancelled"));
                              });
  return ByDeadline(session_->loop(), kj::mv(committing), deadline_.at,
                    "committing a chunk")
      .then([context, meters = session_->gateway->options.meters,
             begun = SteadyNow()](Receipt receipt) mutable {
        auto results = context.getResults();
        ToWire(receipt.status(), results.initStatus());
        if (!receipt.ok()) {
          LogWarning("gateway.commit", receipt.status().ToString());
          return;
        }
        meters->Record("store_commit_us", SteadyNow() - begun);
        FillReceipt(*receipt, results.initReceipt());
      });
}

kj::Promise<absl::StatusOr<StoreReceipt>> StoreStreamServer::CommitNow() {
  using Receipt = absl::StatusOr<StoreReceipt>;
  if (error_.ok()) error_ = session_->CheckOpen();
  if (error_.ok() && layers_ != shape_.layers) {
    error_ = absl::InvalidArgumentError(absl::StrCat(
        "committed after ", layers_, " of ", shape_.layers, " layers"));
  }
  if (!error_.ok()) return Receipt(error_);
  auto expected = session_->loop().Expect<Receipt>(stream_);
  stream_->Commit(std::move(expected.done));
  return kj::mv(expected.promise);
}

}  // namespace kdn::rpc
