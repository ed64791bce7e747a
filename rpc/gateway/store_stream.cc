#include "rpc/gateway/store_stream.h"

#include <kj/vector.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "rpc/gateway/wire.h"
#include "rpc/wire.h"

namespace kdn::rpc {

absl::StatusOr<KvView> StoreStreamServer::ViewOf(
    int first, wire::StoreStream::LayerParams::Reader params) const {
  const auto bytes = params.getBytes();
  const std::byte* memory =
      region_ == nullptr ? reinterpret_cast<const std::byte*>(bytes.begin())
                         : region_->memory.data();
  const uint64_t size =
      region_ == nullptr ? bytes.size() : region_->memory.size();
  KvShape shape = shape_;
  shape.layers = static_cast<int>(params.getCount());
  const KvStrides strides = FromWire(params.getStrides());
  if (absl::Status status =
          ValidateInside(shape, strides, params.getOffset(), size);
      !status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("layer ", first, ": ", status.message()));
  }
  return KvView(memory + params.getOffset(), shape, strides);
}

kj::Array<kj::Promise<void>> StoreStreamServer::FirstTurns() {
  auto turns = kj::heapArrayBuilder<kj::Promise<void>>(kRunsAtOnce);
  for (int i = 0; i < kRunsAtOnce; ++i) turns.add(kj::READY_NOW);
  return turns.finish();
}

StoreStreamServer::Turn StoreStreamServer::TakeTurn() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  kj::Promise<void>& last = turns_[runs_++ % kRunsAtOnce];
  Turn turn{kj::mv(last), kj::mv(paf.fulfiller)};
  last = kj::mv(paf.promise);
  return turn;
}

kj::Promise<void> StoreStreamServer::layer(LayerContext context) {
  if (committed_) return kj::READY_NOW;  // not part of the store
  const uint32_t count = context.getParams().getCount();
  const int left = shape_.layers - layers_;
  if (count < 1 || count > static_cast<uint32_t>(left)) {
    if (error_.ok()) {
      error_ = absl::InvalidArgumentError(absl::StrCat(
          "layer ", layers_, ": ", count, " layers in a call, expected 1 to ",
          left, ", because the model has ", shape_.layers));
    }
    return kj::READY_NOW;
  }
  const int first = layers_;
  layers_ += static_cast<int>(count);
  const int run = static_cast<int>(
      std::clamp<size_t>(kRunBytes / shape_.layer_bytes(), 1, count));
  kj::Vector<kj::Promise<void>> runs;
  for (int at = first; at < layers_; at += run) {
    // Eagerly: joinPromises runs the end of a run, which gives the next run its
    // turn, only when all runs are ready.
    runs.add(PutRun(first, at, std::min(run, layers_ - at), context)
                 .eagerlyEvaluate(nullptr));
  }
  return kj::joinPromises(runs.releaseAsArray());
}

kj::Promise<void> StoreStreamServer::PutRun(int call_first, int first,
                                            int count, LayerContext context) {
  // No allowCancellation: the node reads the layers from this call's message,
  // which lives exactly as long as the call, also when the client hangs up.
  Turn turn = TakeTurn();
  return turn.mine
      .then([this, call_first, first, count, context] {
        return PutNow(call_first, first, count, context);
      })
      .then([done = kj::mv(turn.done)]() mutable { done->fulfill(); });
}

kj::Promise<void> StoreStreamServer::PutNow(int call_first, int first,
                                            int count, LayerContext context) {
  if (error_.ok()) error_ = session_->CheckOpen();
  if (!error_.ok()) return kj::READY_NOW;
  const absl::StatusOr<KvView> view = ViewOf(call_first, context.getParams());
  if (!view.ok()) {
    error_ = view.status();
    return kj::READY_NOW;
  }
  auto expected = session_->loop().Expect<absl::Status>(stream_, /*lent=*/true);
  stream_->PutLayers(
      first, view->Layers(first - call_first, count),
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
