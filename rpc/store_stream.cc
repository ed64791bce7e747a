#include "rpc/store_stream.h"

#include "absl/strings/str_cat.h"
#include "rpc/gateway_wire.h"
#include "rpc/wire.h"

namespace kdn::rpc {

absl::StatusOr<KvView> StoreStreamServer::ViewOf(
    wire::StoreStream::LayerParams::Reader params) {
  if (layers_ == shape_.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("a layer too many: the model has ", shape_.layers));
  }
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
    return absl::Status(
        status.code(), absl::StrCat("layer ", layers_, ": ", status.message()));
  }
  return KvView(memory + params.getOffset(), shape, strides);
}

StoreStreamServer::Turn StoreStreamServer::TakeTurn() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  Turn turn{kj::mv(turn_), kj::mv(paf.fulfiller)};
  turn_ = kj::mv(paf.promise);
  return turn;
}

kj::Promise<void> StoreStreamServer::layer(LayerContext context) {
  // Not to be cancelled: the node reads the layer out of this call's message,
  // which lives as long as the call does and no longer, whoever hangs up.
  Turn turn = TakeTurn();
  return turn.mine.then([this, context] { return PutLayer(context); })
      .then([done = kj::mv(turn.done)]() mutable { done->fulfill(); });
}

kj::Promise<void> StoreStreamServer::PutLayer(LayerContext context) {
  if (error_.ok()) error_ = session_->CheckOpen();
  if (error_.ok() && committed_) {
    error_ = absl::FailedPreconditionError("a layer after commit");
  }
  if (!error_.ok()) return kj::READY_NOW;
  const absl::StatusOr<KvView> view = ViewOf(context.getParams());
  if (!view.ok()) {
    error_ = view.status();
    return kj::READY_NOW;
  }
  ++layers_;
  auto expected = session_->loop().Expect<absl::Status>(stream_, /*lent=*/true);
  stream_->PutLayer(
      *view, [region = region_, done = std::move(expected.done)](
                 absl::Status status) mutable { done(std::move(status)); });
  return expected.promise.then([this](absl::Status status) {
    if (error_.ok()) error_ = std::move(status);
  });
}

void StoreStreamServer::Expire() {
  if (error_.ok()) {
    error_ = absl::DeadlineExceededError("the store's deadline passed");
  }
  // A call under way keeps the node's stream and the region until it is done.
  stream_ = nullptr;
  region_ = nullptr;
  budget_ = Budget{};
}

kj::Promise<void> StoreStreamServer::commit(CommitContext context) {
  context.allowCancellation();
  Turn turn = TakeTurn();
  using Receipt = absl::StatusOr<delivery::StoreReceipt>;
  auto committing = turn.mine.then([this] { return CommitNow(); },
                                   [](kj::Exception&&) -> kj::Promise<Receipt> {
                                     return Receipt(absl::CancelledError(
                                         "a layer of the store was cancelled"));
                                   });
  return ByDeadline(session_->loop(), kj::mv(committing), deadline_.at,
                    "committing a chunk")
      .then([context, done = kj::mv(turn.done)](Receipt receipt) mutable {
        done->fulfill();
        auto results = context.getResults();
        ToWire(receipt.status(), results.initStatus());
        if (receipt.ok()) FillReceipt(*receipt, results.initReceipt());
      });
}

kj::Promise<absl::StatusOr<delivery::StoreReceipt>>
StoreStreamServer::CommitNow() {
  using Receipt = absl::StatusOr<delivery::StoreReceipt>;
  if (error_.ok()) error_ = session_->CheckOpen();
  if (error_.ok() && committed_) {
    error_ = absl::FailedPreconditionError("committed already");
  }
  if (error_.ok() && layers_ != shape_.layers) {
    error_ = absl::InvalidArgumentError(absl::StrCat(
        "committed after ", layers_, " of ", shape_.layers, " layers"));
  }
  if (!error_.ok()) return Receipt(error_);
  committed_ = true;
  auto expected = session_->loop().Expect<Receipt>(stream_);
  stream_->Commit(std::move(expected.done));
  return kj::mv(expected.promise);
}

}  // namespace kdn::rpc
