#ifndef KDN_DELIVERY_NODE_SERVICE_H_
#define KDN_DELIVERY_NODE_SERVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/rate_control.h"
#include "kv/answers.h"
#include "kv/cancellation.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "kv/kv_destination.h"
#include "kv/kv_view.h"
#include "kv/level.h"
#include "kv/model_spec.h"

// Where the gateway (rpc/) and the node (actors/) meet. Neither includes the
// other; cli/ hands one to the other.
namespace kdn::delivery {

template <typename T>
using Done = absl::AnyInvocable<void(T)>;

// Everything but the KV itself that one store carries.
struct StoreRequest {
  std::shared_ptr<const ModelSpec> model;
  ChunkIdentity identity;
  PlacementKey placement;
  std::vector<int32_t> positions;  // one per token, as the engine computed them
  // REQUIRES: with what they refine.
  LevelSet levels = LevelSet::Of(Level::kLossless);
  Durability durability = Durability::kReplicated;
  absl::Duration ttl = absl::ZeroDuration();  // zero: none
  absl::Time deadline;
  SessionId session = SessionId();  // sessions take turns where memory is short
  uint32_t depth = 0;               // chunks before it in its chain
};

// One store in progress. Destroying it before Commit abandons it: nothing ever
// becomes visible. Any thread, one at a time.
class ChunkWriter {
 public:
  virtual ~ChunkWriter() = default;
  // Encodes layer `layer` on a worker; several layers may be under way, each
  // once, and be done in any order. `kv` must stay valid until done.
  virtual void PutLayer(int layer, const KvView& kv,
                        Done<absl::Status> done) = 0;
  // Completes, replicates, answers at the durability asked for. DEADLINE_
  // EXCEEDED or UNAVAILABLE when fewer holders than that acked: some may hold
  // it all the same, and a retry is idempotent. REQUIRES: no layer is under
  // way.
  virtual void Commit(Done<absl::StatusOr<StoreReceipt>> done) = 0;
};

struct RetrieveChunk {
  ChunkRef ref;
  std::vector<int32_t> positions;  // where the engine wants the tokens
  KvDestination destination;       // of the request's slice
};

struct RetrieveRequest {
  std::shared_ptr<const ModelSpec> model;
  Namespace ns;
  std::vector<RetrieveChunk> chunks;
  KvSlice slice;
  // The best one held is delivered that there is time for.
  LevelSet accept = LevelSet::All();
  absl::Time deadline;
  // What the engine would do instead; zero: it cannot say.
  double prefill_tokens_per_second = 0;
  Reuse reuse = Reuse::kAnyChunk;
  SessionId session = SessionId();  // sessions take turns where memory is short
  // Chunks of the same call that are asked for by themselves, by the same
  // deadline.
  int chunks_beside = 0;
  // The caller cancels when nobody wants the result any more. The destination
  // must stay valid until done all the same.
  std::shared_ptr<Cancellation> cancellation = std::make_shared<Cancellation>();
};

// A node, as its gateway sees it. Every call returns at once; every Done runs
// exactly once, on any thread, by the deadline. Thread-safe.
class NodeService {
 public:
  virtual ~NodeService() = default;

  virtual void BeginStore(
      StoreRequest request,
      Done<absl::StatusOr<std::unique_ptr<ChunkWriter>>> done) = 0;

  // One result per chunk, in order. UNAVAILABLE never: an owner that does not
  // answer by `deadline` counts as a miss.
  virtual void Lookup(std::vector<ChunkRef> chunks, Namespace ns,
                      absl::Time deadline,
                      Done<absl::StatusOr<std::vector<LookupResult>>> done) = 0;

  // on_layer(chunk, layer): that layer of that chunk is complete and verified
  // in the destination; layer counts from the slice's first. Called on worker
  // threads, possibly several at once, never after done. A chunk whose outcome
  // is not a hit may have had some layers announced.
  using OnLayer = std::function<void(int chunk, int layer)>;
  virtual void Retrieve(RetrieveRequest request, OnLayer on_layer,
                        Done<std::vector<ChunkOutcome>> done) = 0;

  // Holds every copy of the chunk against eviction until `expires` or the
  // session ends. One status per chunk: OK when at least one holder pinned it.
  virtual void Pin(std::vector<ChunkRef> chunks, Namespace ns,
                   SessionId session, absl::Time expires, absl::Time deadline,
                   Done<std::vector<absl::Status>> done) = 0;
  virtual void Unpin(std::vector<ChunkRef> chunks, Namespace ns,
                     SessionId session, absl::Time deadline,
                     Done<std::vector<absl::Status>> done) = 0;
  // Removes every copy. OK once none can come back from a disk; UNAVAILABLE
  // when an owner is away or its disk failed, with the copies within reach
  // removed.
  virtual void Remove(std::vector<ChunkRef> chunks, Namespace ns,
                      SessionId session, absl::Time deadline,
                      Done<std::vector<absl::Status>> done) = 0;

  // Unique across the cluster while the node runs.
  virtual SessionId OpenSession() = 0;
  // Releases every lease of the session, on every node. Idempotent.
  virtual void CloseSession(SessionId session) = 0;

  // All nodes of the configuration; the dead ones with alive = false.
  virtual void Status(absl::Time deadline,
                      Done<std::vector<NodeStatus>> done) = 0;
  virtual NodeId self() const = 0;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_NODE_SERVICE_H_
