#include "rpc/client/store.h"

#include <algorithm>
#include <climits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "rpc/client/knowledge.h"
#include "rpc/client/kv_copy.h"
#include "rpc/client/wire.h"

namespace kdn::rpc {
namespace {

// Most unanswered calls with layers of a store: the four that the gateway
// encodes at the same time, and four that wait.
constexpr size_t kCallsUnanswered = 8;
// Most bytes of unanswered layers in messages: half of the bytes that a
// connection may have unanswered, so that the gateway still reads other calls.
constexpr size_t kBytesUnanswered = 32 << 20;

// Bytes of the layers in one message, unless one layer has more: the gateway
// encodes the layers of one message while the next one comes.
constexpr uint64_t kMessageBytes = 1u << 20;

bool IsDense(const KvView& layers) {
  const auto layer_bytes = layers.shape().layer_bytes();
  return FootprintOf(layers.Layer(0)) == layer_bytes &&
         (layers.shape().layers == 1 ||
          layers.strides().layer == static_cast<int64_t>(layer_bytes));
}

// Puts layers into the message: in their own order if they are dense, else
// packed.
void FillInline(const KvView& layers,
                wire::StoreStream::LayerParams::Builder request) {
  const KvShape& shape = layers.shape();
  if (IsDense(layers)) {
    request.setBytes(capnp::Data::Reader(
        reinterpret_cast<const kj::byte*>(layers.base()), shape.bytes()));
    ToWire(layers.strides(), request.initStrides());
    return;
  }
  const DenseLayout layout = NearestLayout(layers.strides());
  auto packed = request.initBytes(static_cast<unsigned>(shape.bytes()));
  for (int i = 0; i < shape.layers; ++i) {
    PackLayer(
        layers.Layer(i), layout,
        reinterpret_cast<std::byte*>(packed.begin()) + i * shape.layer_bytes());
  }
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
  auto answer = request.send();
  // Calls on the stream may follow at once. The gateway lets them wait until
  // the store has begun.
  stream_ = answer.getStream();
  return answer.then([](auto&& begun) { return FromWire(begun.getStatus()); });
}

int Upload::LayersPerCall() const {
  const std::vector<std::string>& features = connection_->node().features;
  if (std::find(features.begin(), features.end(), "layers-per-call") ==
      features.end()) {
    return 1;
  }
  if (region_ != nullptr) return INT_MAX;
  const uint64_t most =
      std::min(kMessageBytes, connection_->node().message_bytes_max / 2);
  return static_cast<int>(
      std::max<uint64_t>(1, most / layer_shape_.layer_bytes()));
}

kj::Promise<void> Upload::SendLayers(const KvView& layers) {
  const size_t bytes = region_ == nullptr ? layers.shape().bytes() : 0;
  auto request = stream_->layerRequest(
      capnp::MessageSize{bytes / sizeof(capnp::word) + 64, 0});
  request.setCount(static_cast<uint32_t>(layers.shape().layers));
  if (region_ == nullptr) {
    FillInline(layers, request);
  } else {
    request.setOffset(static_cast<uint64_t>(layers.base() - region_->data()));
    ToWire(layers.strides(), request.initStrides());
  }
  unanswered_.push_back(request.send().ignoreResult().eagerlyEvaluate(nullptr));
  const size_t window =
      std::min(kCallsUnanswered, kBytesUnanswered / std::max<size_t>(bytes, 1));
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
  const int left = kv.shape().layers - layer;
  if (left == 0) return kj::READY_NOW;
  const int count = std::min(LayersPerCall(), left);
  return SendLayers(kv.Layers(layer, count)).then([this, kv, layer, count] {
    return SendFrom(kv, layer + count);
  });
}

kj::Promise<absl::StatusOr<StoreReceipt>> Upload::SendAndCommit(
    const KvView& kv) {
  return SendFrom(kv, 0).then([this] { return Commit(); });
}

kj::Promise<absl::StatusOr<StoreReceipt>> Upload::Run(const StoreSpec& spec,
                                                      const KvView& kv) {
  using Result = absl::StatusOr<StoreReceipt>;
  kj::Promise<absl::Status> beginning = Begin(spec);
  // KV in messages waits for the gateway's answer: a store that waits for
  // memory must not fill the gateway with messages.
  if (region_ == nullptr) {
    return beginning.then(
        [this, kv](absl::Status begun) -> kj::Promise<Result> {
          if (!begun.ok()) return Result(std::move(begun));
          return SendAndCommit(kv);
        });
  }
  // Calls on the stream of a store that did not begin fail: the answer of the
  // store says why.
  auto committing = SendAndCommit(kv).eagerlyEvaluate(nullptr);
  return beginning.then([committing = kj::mv(committing)](
                            absl::Status begun) mutable -> kj::Promise<Result> {
    if (!begun.ok()) return Result(std::move(begun));
    return kj::mv(committing);
  });
}

absl::Status StoreStreamImpl::PutLayer(const KvView& layer) {
  if (absl::Status status = upload_->CheckLayer(layer); !status.ok()) {
    return status;
  }
  return upload_->connection().loop().WaitVoid(
      kj::evalNow([&] { return upload_->SendLayers(layer); }),
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
