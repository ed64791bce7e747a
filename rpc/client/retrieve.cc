#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rpc/client/knowledge.h"
#include "rpc/client/kv_copy.h"
#include "rpc/client/wire.h"

namespace kdn::rpc {
namespace {

// Of KV, in one message. A message costs about as much time as copying some
// 100 KB.
constexpr uint32_t kMessageBytes = 1u << 20;

// Where a retrieve delivers. `spec` is null once the call has ended, because
// the gateway may keep the sink, and call it, for longer.
struct Delivery {
  const RetrieveSpec* spec = nullptr;
  DenseLayout layout = DenseLayout::kTokenMajor;
  Knowledge::OnLayer on_layer;
};

class LayerSinkServer final : public wire::LayerSink::Server {
 public:
  explicit LayerSinkServer(std::shared_ptr<Delivery> delivery)
      : delivery_(std::move(delivery)) {}

  kj::Promise<void> data(DataContext context) override {
    const auto params = context.getParams();
    const uint64_t first = params.getLayer();
    const uint64_t count = params.getCount();
    const RetrieveChunk* chunk = ChunkOf(params.getChunk(), first, count);
    if (chunk == nullptr) return kj::READY_NOW;
    const size_t layer_bytes = chunk->destination.shape().layer_bytes();
    const auto bytes = params.getBytes();
    KJ_REQUIRE(bytes.size() == layer_bytes * count, "layers of the wrong size",
               bytes.size());
    for (uint64_t i = 0; i < count; ++i) {
      UnpackLayer(
          reinterpret_cast<const std::byte*>(bytes.begin()) + i * layer_bytes,
          delivery_->layout,
          chunk->destination.Layer(static_cast<int>(first + i)));
      Tell(params.getChunk(), static_cast<uint32_t>(first + i));
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> ready(ReadyContext context) override {
    for (const auto layer : context.getParams().getLayers()) {
      if (ChunkOf(layer.getChunk(), layer.getLayer(), 1) != nullptr) {
        Tell(layer.getChunk(), layer.getLayer());
      }
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> done(DoneContext) override { return kj::READY_NOW; }

 private:
  // Null when the call has ended. Throws for a chunk or for layers that were
  // not asked for; the gateway gets the exception.
  const RetrieveChunk* ChunkOf(uint32_t chunk, uint64_t layer,
                               uint64_t count) const {
    if (delivery_->spec == nullptr) return nullptr;
    const std::vector<RetrieveChunk>& chunks = delivery_->spec->chunks;
    KJ_REQUIRE(chunk < chunks.size(), "a chunk that was not asked for", chunk);
    KJ_REQUIRE(layer + count <= static_cast<uint64_t>(
                                    chunks[chunk].destination.shape().layers),
               "a layer outside the slice", layer, count);
    return &chunks[chunk];
  }
  void Tell(uint32_t chunk, uint32_t layer) const {
    if (!delivery_->on_layer) return;
    delivery_->on_layer(static_cast<int>(chunk), static_cast<int>(layer));
  }

  std::shared_ptr<Delivery> delivery_;
};

void FillChunk(const RetrieveChunk& chunk, const RegionImpl* region,
               wire::RetrieveRequest::Chunk::Builder out) {
  ToWire(chunk.ref, out.initRef());
  FillList(chunk.positions,
           out.initPositions(static_cast<unsigned>(chunk.positions.size())));
  if (region == nullptr) return;
  out.setOffset(
      static_cast<uint64_t>(chunk.destination.base() - region->data()));
  ToWire(chunk.destination.strides(), out.initStrides());
}

}  // namespace

absl::Status KnowledgeImpl::CheckRetrieve(const RetrieveSpec& spec,
                                          const KvSlice& slice) const {
  if (absl::Status s = Validate(slice, model_); !s.ok()) return s;
  for (size_t i = 0; i < spec.chunks.size(); ++i) {
    const RetrieveChunk& chunk = spec.chunks[i];
    const KvShape expected{slice.layers(), slice.heads(),
                           static_cast<int>(chunk.positions.size()),
                           model_.head_dim, model_.dtype};
    const KvShape& got = chunk.destination.shape();
    if (got != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          "chunk ", i, "'s destination has ", got.layers, " layers x ",
          got.kv_heads, " heads x ", got.tokens, " tokens x ", got.head_dim,
          ", expected ", expected.layers, " x ", expected.kv_heads, " x ",
          expected.tokens, " x ", expected.head_dim));
    }
    if (absl::Status s =
            ValidateInside(got, chunk.destination.strides(), 0, UINT64_MAX);
        !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

const RegionImpl* KnowledgeImpl::RegionOfAll(const RetrieveSpec& spec) const {
  const RegionImpl* region = nullptr;
  for (const RetrieveChunk& chunk : spec.chunks) {
    const std::byte* base = chunk.destination.base();
    const uint64_t reach = ReachOf(chunk.destination);
    if (region == nullptr) region = connection_->RegionAround(base, reach);
    if (region == nullptr || !region->Holds(base, reach)) return nullptr;
  }
  return region;
}

absl::StatusOr<std::vector<ChunkOutcome>> KnowledgeImpl::Retrieve(
    const RetrieveSpec& spec, OnLayer on_layer, absl::Duration timeout) {
  if (spec.chunks.empty()) return std::vector<ChunkOutcome>();
  const KvSlice slice = spec.slice.value_or(WholeOf(model_));
  if (absl::Status s = CheckRetrieve(spec, slice); !s.ok()) return s;
  const RegionImpl* region = RegionOfAll(spec);
  auto delivery = std::make_shared<Delivery>();
  delivery->spec = &spec;
  delivery->layout = NearestLayout(spec.chunks.front().destination.strides());
  delivery->on_layer = std::move(on_layer);

  auto request = capability_.retrieveRequest();
  auto body = request.initRequest();
  auto chunks = body.initChunks(static_cast<unsigned>(spec.chunks.size()));
  for (unsigned i = 0; i < spec.chunks.size(); ++i) {
    FillChunk(spec.chunks[i], region, chunks[i]);
  }
  ToWire(slice, body.initSlice());
  // 0 means all levels, also to a node that does not know all of these.
  body.setAccept(spec.accept == LevelSet::All() ? 0 : spec.accept.bits());
  body.setPrefillTokensPerSecond(spec.prefill_tokens_per_second);
  body.setLeadingChunks(spec.leading_chunks);
  if (region != nullptr) {
    body.getDestination().setMemory(region->capability());
  } else {
    body.getDestination().setInline(
        static_cast<wire::Layout>(delivery->layout));
    body.setMessageBytes(kMessageBytes);
  }
  if (region == nullptr || delivery->on_layer) {
    request.setSink(kj::heap<LayerSinkServer>(delivery));
  }
  request.setDeadlineMs(TimeoutToWire(timeout));
  auto answer = connection_->Call(kj::mv(request), timeout);
  delivery->spec = nullptr;
  if (!answer.ok()) return answer.status();
  const auto outcomes = answer->getOutcomes();
  if (absl::Status s = CheckCount(outcomes.size(), spec.chunks.size());
      !s.ok()) {
    return s;
  }
  std::vector<ChunkOutcome> out;
  for (const auto outcome : outcomes) out.push_back(FromWire(outcome));
  return out;
}

}  // namespace kdn::rpc
