#include "transfer/local_fetch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kv/log.h"

namespace kdn::transfer {
namespace {

// Starting a task takes as long as copying some 100 KB.
constexpr size_t kRunBytes = 1u << 20;

// How the layers of a chunk are shared out: in runs of `run` layers. Each of
// `lanes` sequences of tasks decodes every lanes-th run.
struct Lanes {
  int layers = 0;
  int run = 1;
  int lanes = 1;
};

// A few chunks take all threads. Of many chunks, each takes one thread at a
// time, so that the pool has few tasks of each retrieve.
Lanes LanesOf(const RetrieveContext& context, int chunk, int threads) {
  const delivery::RetrieveRequest& request = context.request;
  const KvShape& shape = request.chunks[chunk].destination.shape();
  const int layers = request.slice.layers();
  const int run = static_cast<int>(
      std::clamp<size_t>(kRunBytes / shape.layer_bytes(), 1, layers));
  const int runs = (layers + run - 1) / run;
  const int chunks = static_cast<int>(request.chunks.size());
  return {layers, run, std::clamp(threads / chunks, 1, runs)};
}

// Decodes the run that begins at `first`. Posts a task for the next run of this
// lane.
void DecodeFrom(int first, const Lanes& lanes,
                std::shared_ptr<ChunkDecode> decode, storage::ObjectRef object,
                WorkPool* pool, RequesterId requester) {
  const int end = std::min(first + lanes.run, lanes.layers);
  for (int layer = first; layer < end; ++layer) {
    decode->DecodeOf(layer, object->bytes());
  }
  const int next = first + lanes.run * lanes.lanes;
  if (next >= lanes.layers) return;
  pool->Post(WorkOrder{WorkClass::kRead, requester, next},
             [next, lanes, pool, requester, decode = std::move(decode),
              object = std::move(object)] {
               DecodeFrom(next, lanes, decode, object, pool, requester);
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
               const Lanes lanes = LanesOf(*context, chunk, pool->threads());
               for (int lane = 1; lane < lanes.lanes; ++lane) {
                 pool->Post(
                     WorkOrder{WorkClass::kRead, requester, lane * lanes.run},
                     [first = lane * lanes.run, lanes, pool, requester,
                      decode = *decode, object = held.object] {
                       DecodeFrom(first, lanes, decode, object, pool,
                                  requester);
                     });
               }
               DecodeFrom(0, lanes, *decode, held.object, pool, requester);
             });
}

}  // namespace kdn::transfer
