#include "transfer/local_fetch.h"

#include <utility>
#include <vector>

#include "kv/log.h"

namespace kdn::transfer {
namespace {

void DecodeFrom(int layer, std::shared_ptr<ChunkDecode> decode, int layers,
                storage::ObjectRef object, WorkPool* pool,
                RequesterId requester) {
  decode->DecodeOf(layer, object->bytes());
  if (layer + 1 == layers) return;
  pool->Post(WorkOrder{WorkClass::kRead, requester, layer + 1},
             [layer, layers, pool, requester, decode = std::move(decode),
              object = std::move(object)] {
               DecodeFrom(layer + 1, decode, layers, object, pool, requester);
             });
}

// Null: the engine computes the chunk faster than this node decodes it.
absl::StatusOr<std::shared_ptr<ChunkDecode>> Begin(
    const std::shared_ptr<RetrieveContext>& context, int chunk,
    const delivery::PeerService::Held& held,
    std::optional<ObjectVersion> pinned,
    const std::shared_ptr<delivery::Done<delivery::AttemptResult>>&
        on_attempt) {
  absl::StatusOr<codec::ObjectIndex> index =
      codec::ObjectIndex::Parse(held.object->bytes(), held.object->size());
  if (!index.ok()) return index.status();
  const LevelSet deliverable = index->header().levels & context->request.accept;
  if (deliverable.empty()) {
    return absl::NotFoundError("this node has the chunk at no accepted level");
  }
  const LevelSet fast = deliverable.Without(context->too_slow);
  if (fast.empty()) return nullptr;
  return ChunkDecode::Create(
      context, chunk, *std::move(index),
      std::vector<Level>(context->request.slice.layers(), fast.Best()),
      held.info.tier, pinned, [on_attempt](delivery::AttemptResult result) {
        (*on_attempt)(std::move(result));
      });
}

}  // namespace

void FetchFromMemory(std::shared_ptr<RetrieveContext> context, int chunk,
                     delivery::PeerService::Held held,
                     std::optional<ObjectVersion> pinned, WorkPool* pool,
                     RequesterId requester,
                     delivery::Done<delivery::AttemptResult> on_attempt) {
  auto shared = std::make_shared<delivery::Done<delivery::AttemptResult>>(
      std::move(on_attempt));
  pool->Post(WorkOrder{WorkClass::kRead, requester, 0},
             [context, chunk, pinned, pool, requester, shared,
              held = std::move(held)] {
               absl::StatusOr<std::shared_ptr<ChunkDecode>> decode =
                   Begin(context, chunk, held, pinned, shared);
               if (!decode.ok() && !absl::IsNotFound(decode.status())) {
                 LogWarning("transfer.local", decode.status().ToString());
               }
               if (!decode.ok() || *decode == nullptr) {
                 delivery::AttemptResult result;
                 result.status = decode.status();
                 result.version = held.info.version;
                 result.recompute = decode.ok();
                 (*shared)(std::move(result));
                 return;
               }
               DecodeFrom(0, *decode, context->request.slice.layers(),
                          held.object, pool, requester);
             });
}

}  // namespace kdn::transfer
