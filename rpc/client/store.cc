#include "rpc/client/store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "rpc/client/knowledge.h"
#include "rpc/client/kv_copy.h"
#include "rpc/client/wire.h"

namespace kdn::rpc {
namespace {

// Most unanswered layers of a store: the four that the gateway encodes at the
// same time, and four that wait.
constexpr size_t kLayersUnanswered = 8;
// Most bytes of unanswered layers in messages: half of the bytes that a
// connection may have unanswered, so that the gateway still reads other calls.
constexpr size_t kBytesUnanswered = 32 << 20;

// Puts a layer into the message: in its own order if it is dense, else packed.
void FillInline(const KvView& layer,
                wire::StoreStream::LayerParams::Builder request) {
  const KvShape& shape = layer.shape();
  const size_t bytes = shape.layer_bytes();
  if (FootprintOf(layer) == bytes) {
    request.setBytes(capnp::Data::Reader(
        reinterpret_cast<const kj::byte*>(layer.base()), bytes));
    ToWire(layer.strides(), request.initStrides());
    return;
  }
  const DenseLayout layout = NearestLayout(layer.strides());
  auto packed = request.initBytes(static_cast<unsigned>(bytes));
  PackLayer(layer, layout, reinterpret_cast<std::byte*>(packed.begin()));
  ToWire(StridesOf(layout, shape), request.initStrides());
}

}  // namespace

Upload::Upload(std::shared_ptr<Connection> connection,
               wire::Knowledge::Client knowledge, const KvShape& shape,
               const RegionImpl* region, absl::Duration timeout)
    : connection_(std::move(connection)),
      knowledge_(kj::mv(knowledge)),
      layer_shape_(shape),
      region_(region),
      timeout_(timeout),
      deadline_(SteadyNow() + timeout) {
  layer_shape_.layers = 1;
}

absl::Duration Upload::TimeLeft() const {
  return std::max(deadline_ - SteadyNow(), absl::ZeroDuration()) + kAnswerGrace;
}

absl::Status Upload::CheckLayer(const KvView& layer) const {
  if (layer.shape() != layer_shape_) {
    const KvShape& got = layer.shape();
    return absl::InvalidArgumentError(absl::StrCat(
        "a layer of ", got.layers, " x ", got.kv_heads, " heads x ", got.tokens,
        " tokens x ", got.head_dim, " ",
        absl::string_view(Name(got.dtype).data(), Name(got.dtype).size()),
        ", expected 1 x ", layer_shape_.kv_heads, " x ", layer_shape_.tokens,
        " x ", layer_shape_.head_dim));
  }
  if (absl::Status status =
          ValidateInside(layer.shape(), layer.strides(), 0, UINT64_MAX);
      !status.ok()) {
    return status;
  }
  if (region_ != nullptr && !region_->Holds(layer.base(), FootprintOf(layer))) {
    return absl::InvalidArgumentError(
        "a layer lies outside the store's region");
  }
  const uint64_t bytes_max = connection_->node().message_bytes_max;
  if (region_ == nullptr && layer.shape().layer_bytes() > bytes_max / 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a layer of ", layer.shape().layer_bytes(), " bytes is more than half ",
        "a message of ", bytes_max, ": use shared memory"));
  }
  return absl::OkStatus();
}

kj::Promise<absl::Status> Upload::Begin(const StoreSpec& spec) {
  auto request = knowledge_.storeRequest();
  ToWire(spec, request.initRequest());
  if (region_ != nullptr) {
    request.getRequest().setMemory(region_->capability());
  }
  request.setDeadlineMs(TimeoutToWire(timeout_));
  return request.send().then([this](auto&& answer) -> absl::Status {
    absl::Status status = FromWire(answer.getStatus());
    if (status.ok()) stream_ = answer.getStream();
    return status;
  });
}

kj::Promise<void> Upload::SendLayer(const KvView& layer) {
  const size_t bytes = region_ == nullptr ? layer.shape().layer_bytes() : 0;
  auto request = stream_->layerRequest(
      capnp::MessageSize{bytes / sizeof(capnp::word) + 64, 0});
  if (region_ == nullptr) {
    FillInline(layer, request);
  } else {
    request.setOffset(static_cast<uint64_t>(layer.base() - region_->data()));
    ToWire(layer.strides(), request.initStrides());
  }
  unanswered_.push_back(request.send().ignoreResult().eagerlyEvaluate(nullptr));
  const size_t window = std::min(kLayersUnanswered,
                                 kBytesUnanswered / std::max<size_t>(bytes, 1));
  if (unanswered_.size() <= window) return kj::READY_NOW;
  kj::Promise<void> oldest = kj::mv(unanswered_.front());
  unanswered_.pop_front();
  return oldest;
}

kj::Promise<absl::StatusOr<StoreReceipt>> Upload::Commit() {
  return stream_->commitRequest().send().then(
      [](auto&& answer) -> absl::StatusOr<StoreReceipt> {
        if (absl::Status status = FromWire(answer.getStatus()); !status.ok()) {
          return status;
        }
        return FromWire(answer.getReceipt());
      });
}

kj::Promise<void> Upload::SendFrom(const KvView& kv, int layer) {
  if (layer == kv.shape().layers) return kj::READY_NOW;
  return SendLayer(kv.Layer(layer)).then([this, kv, layer] {
    return SendFrom(kv, layer + 1);
  });
}

kj::Promise<absl::StatusOr<StoreReceipt>> Upload::Run(const StoreSpec& spec,
                                                      const KvView& kv) {
  using Result = absl::StatusOr<StoreReceipt>;
  return Begin(spec).then(
      [this, kv](absl::Status begun) -> kj::Promise<Result> {
        if (!begun.ok()) return Result(std::move(begun));
        return SendFrom(kv, 0).then([this] { return Commit(); });
      });
}

absl::Status StoreStreamImpl::PutLayer(const KvView& layer) {
  if (absl::Status status = upload_->CheckLayer(layer); !status.ok()) {
    return status;
  }
  return upload_->connection().loop().WaitVoid(
      kj::evalNow([&] { return upload_->SendLayer(layer); }),
      upload_->TimeLeft());
}

absl::StatusOr<StoreReceipt> StoreStreamImpl::Commit() {
  auto receipt = upload_->connection().loop().Wait(
      kj::evalNow([&] { return upload_->Commit(); }), upload_->TimeLeft());
  if (!receipt.ok()) return receipt.status();
  return *receipt;
}

PendingStoreImpl::PendingStoreImpl(std::unique_ptr<Upload> upload,
                                   const StoreSpec& spec, const KvView& kv)
    : upload_(std::move(upload)), running_(kj::evalNow([&] {
                                             return upload_->Run(spec, kv);
                                           }).eagerlyEvaluate(nullptr)) {}

absl::StatusOr<StoreReceipt> PendingStoreImpl::Await() {
  if (!refused_.ok()) return refused_;
  if (!running_) {
    return absl::FailedPreconditionError("a store is awaited only once");
  }
  auto receipt =
      upload_->connection().loop().Wait(kj::mv(*running_), upload_->TimeLeft());
  running_.reset();
  if (!receipt.ok()) return receipt.status();
  return *receipt;
}

absl::Status KnowledgeImpl::CheckStore(const StoreSpec& spec) const {
  if (spec.identity.ns != ns_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a chunk of namespace '", spec.identity.ns.name(),
                     "' stored through namespace '", ns_.name(), "'"));
  }
  if (spec.identity.fingerprint != fingerprint_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a chunk of model ", ShortHex(spec.identity.fingerprint),
                     " stored through model ", ShortHex(fingerprint_)));
  }
  if (spec.ttl < absl::ZeroDuration() || spec.ttl > kTtlMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a TTL of ", absl::FormatDuration(spec.ttl),
                     ", expected 0 to ", absl::FormatDuration(kTtlMax)));
  }
  return absl::OkStatus();
}

absl::Status KnowledgeImpl::CheckWhole(const StoreSpec& spec,
                                       const KvView& kv) const {
  const KvShape expected =
      ShapeOf(model_, static_cast<int>(spec.identity.tokens.size()));
  if (kv.shape() != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV of ", kv.shape().layers, " layers x ", kv.shape().kv_heads,
        " heads x ", kv.shape().tokens, " tokens x ", kv.shape().head_dim,
        ", expected ", expected.layers, " x ", expected.kv_heads, " x ",
        expected.tokens, " x ", expected.head_dim));
  }
  return ValidateInside(kv.shape(), kv.strides(), 0, UINT64_MAX);
}

std::unique_ptr<PendingStore> KnowledgeImpl::StoreAsync(
    const StoreSpec& spec, const KvView& kv, absl::Duration timeout) {
  connection_->loop().CheckThread();
  absl::Status status = CheckStore(spec);
  if (status.ok()) status = CheckWhole(spec, kv);
  if (!status.ok()) return std::make_unique<PendingStoreImpl>(status);
  const RegionImpl* region = connection_->RegionAround(kv.base(), ReachOf(kv));
  auto upload = std::make_unique<Upload>(connection_, capability_, kv.shape(),
                                         region, timeout);
  if (status = upload->CheckLayer(kv.Layer(0)); !status.ok()) {
    return std::make_unique<PendingStoreImpl>(status);
  }
  return std::make_unique<PendingStoreImpl>(std::move(upload), spec, kv);
}

absl::StatusOr<StoreReceipt> KnowledgeImpl::Store(const StoreSpec& spec,
                                                  const KvView& kv,
                                                  absl::Duration timeout) {
  return StoreAsync(spec, kv, timeout)->Await();
}

absl::StatusOr<std::unique_ptr<StoreStream>> KnowledgeImpl::BeginStore(
    const StoreSpec& spec, absl::Duration timeout, const Region* region) {
  if (absl::Status status = CheckStore(spec); !status.ok()) return status;
  const KvShape shape =
      ShapeOf(model_, static_cast<int>(spec.identity.tokens.size()));
  const bool shared = region != nullptr && region->shared();
  const RegionImpl* own =
      shared ? connection_->RegionAround(region->data(), 1) : nullptr;
  if (shared && own == nullptr) {
    return absl::InvalidArgumentError(
        "the region belongs to another connection");
  }
  auto upload =
      std::make_unique<Upload>(connection_, capability_, shape, own, timeout);
  auto begun = connection_->loop().Wait(
      kj::evalNow([&] { return upload->Begin(spec); }), upload->TimeLeft());
  if (!begun.ok()) return begun.status();
  if (!begun->ok()) return *begun;
  return std::make_unique<StoreStreamImpl>(std::move(upload));
}

}  // namespace kdn::rpc
