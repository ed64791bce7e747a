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

// The interface between the gateway (rpc/) and the node (actors/). The two
// folders do not include each other; cli/ hands the node to the gateway.
namespace kdn::delivery {

template <typename T>
using Done = absl::AnyInvocable<void(T)>;

// Everything that one store carries except the KV itself.
struct StoreRequest {
  std::shared_ptr<const ModelSpec> model;
  ChunkIdentity identity;
  std::vector<int32_t> positions;  // one per token, as the engine computed them
  // The levels to keep. REQUIRES: the levels that a level refines are in the
  // set too.
  LevelSet levels = LevelSet::Of(Level::kLossless);
  Durability durability = Durability::kReplicated;
  absl::Duration ttl = absl::ZeroDuration();  // zero: none
  absl::Time deadline;
  // Sessions take turns where memory or connections are short.
  SessionId session = SessionId();
  uint32_t depth = 0;  // how many chunks are before this one in its chain
  // The caller cancels when nobody wants to write the chunk any more: a store
  // that still waits for memory then leaves the line. No effect once
  // BeginStore has called its `done`.
  std::shared_ptr<Cancellation> cancellation = std::make_shared<Cancellation>();
};

// One store in progress. Destroying the writer before Commit abandons the
// store: nothing ever becomes visible. Any thread, one at a time.
class ChunkWriter {
 public:
  virtual ~ChunkWriter() = default;
  // Encodes the layers in `kv`, of which `first` is the first, on one worker.
  // Several calls may be under way at a time, and they may be done in any
  // order. Each layer is put once. `kv` must stay valid until `done`.
  virtual void PutLayers(int first, const KvView& kv,
                         Done<absl::Status> done) = 0;
  // Completes the object, replicates it, and answers once it is held at the
  // requested durability. DEADLINE_EXCEEDED, UNAVAILABLE or the last node's
  // error when too few nodes acknowledged; some nodes may hold the object then,
  // and a retry is idempotent. REQUIRES: no layer is being encoded.
  virtual void Commit(Done<absl::StatusOr<StoreReceipt>> done) = 0;
};

struct RetrieveChunk {
  ChunkRef ref;
  std::vector<int32_t> positions;  // where the engine wants the tokens
  KvDestination destination;       // takes the request's slice
};

struct RetrieveRequest {
  std::shared_ptr<const ModelSpec> model;
  Namespace ns;
  std::vector<RetrieveChunk> chunks;
  KvSlice slice;
  // Each layer is delivered at the best of these levels that a copy has and
  // that there is time for.
  LevelSet accept = LevelSet::All();
  absl::Time deadline;
  // How fast the engine prefills; zero: unknown.
  double prefill_tokens_per_second = 0;
  Reuse reuse = Reuse::kAnyChunk;
  SessionId session = SessionId();  // sessions take turns where memory is short
  // How many chunks of the same engine call other requests ask for, by the same
  // deadline.
  int chunks_beside = 0;
  // The caller cancels when nobody wants the result any more. The destination
  // must stay valid until `done` even then.
  std::shared_ptr<Cancellation> cancellation = std::make_shared<Cancellation>();
};

// How the calibration of a CalibrationRun is made: see codec::Calibrator.
struct CalibrationChoice {
  double base_bits = 1.5;
  std::vector<double> weights;  // [layer][K|V][KV head]; empty: all equal
};

// A calibration in the making. Destroying the run gives it up. Any thread, one
// call at a time.
class CalibrationRun {
 public:
  struct Count {
    int tokens = 0;      // added so far
    int tokens_min = 0;  // that Finish needs
  };
  virtual ~CalibrationRun() = default;
  // Adds the KV of a run of tokens, of all layers, with K rotated to
  // `positions`. `importance` as for codec::Calibrator::Add. `kv` must stay
  // valid until `done`. After an error, nothing is added.
  virtual void Add(const KvView& kv, std::vector<int32_t> positions,
                   std::vector<double> importance,
                   Done<absl::StatusOr<Count>> done) = 0;
  // Makes the calibration and stores it: see NodeService::StoreCalibration.
  // INVALID_ARGUMENT for too few tokens or wrong weights.
  virtual void Finish(CalibrationChoice choice, absl::Time deadline,
                      Done<absl::StatusOr<CalibrationReceipt>> done) = 0;
};

// The interface of a node for its gateway. Every call returns at once; every
// Done runs exactly once, on any thread, by the deadline. Thread-safe.
class NodeService {
 public:
  virtual ~NodeService() = default;

  virtual void BeginStore(
      StoreRequest request,
      Done<absl::StatusOr<std::unique_ptr<ChunkWriter>>> done) = 0;

  // One result per chunk, in order. Never UNAVAILABLE: an owner that does not
  // answer by `deadline` counts as a miss.
  virtual void Lookup(std::vector<ChunkRef> chunks, Namespace ns,
                      absl::Time deadline,
                      Done<absl::StatusOr<std::vector<LookupResult>>> done) = 0;

  // on_layer(chunk, layer): this layer of this chunk is complete and verified
  // in the destination. `layer` counts from the slice's first layer. Called on
  // worker threads, possibly on several at once, never after `done`. Some
  // layers of a chunk may be announced even if its outcome is not a hit.
  using OnLayer = std::function<void(int chunk, int layer)>;
  virtual void Retrieve(RetrieveRequest request, OnLayer on_layer,
                        Done<std::vector<ChunkOutcome>> done) = 0;

  // Keeps every copy of the chunk from eviction until `expires` or until the
  // session ends. One status per chunk: OK when at least one node pinned it.
  virtual void Pin(std::vector<ChunkRef> chunks, Namespace ns,
                   SessionId session, absl::Time expires, absl::Time deadline,
                   Done<std::vector<absl::Status>> done) = 0;
  virtual void Unpin(std::vector<ChunkRef> chunks, Namespace ns,
                     SessionId session, absl::Time deadline,
                     Done<std::vector<absl::Status>> done) = 0;
  // Removes every copy. OK once no copy can come back from a disk.
  // FAILED_PRECONDITION when another session pins a copy; UNAVAILABLE when an
  // owner is away, does not answer, or its disk failed. The other copies are
  // removed even then.
  virtual void Remove(std::vector<ChunkRef> chunks, Namespace ns,
                      SessionId session, absl::Time deadline,
                      Done<std::vector<absl::Status>> done) = 0;

  // Keeps a calibration here and hands it to the other nodes: OK when every
  // live node has it, or at the deadline when as many nodes have it as have
  // copies of a chunk. DATA_LOSS or INVALID_ARGUMENT for bytes that are not a
  // calibration, RESOURCE_EXHAUSTED when this node has no room: nothing is
  // changed then. UNAVAILABLE when too few nodes have it at the deadline: the
  // nodes go on, and storing it again is safe.
  virtual void StoreCalibration(
      std::vector<std::byte> bytes, absl::Time deadline,
      Done<absl::StatusOr<CalibrationReceipt>> done) = 0;
  // The calibrations that this node has. Of one model, the calibration that
  // codes new objects comes first.
  virtual void Calibrations(
      Done<absl::StatusOr<std::vector<CalibrationEntry>>> done) = 0;

  // Begins to make a calibration of a model. RESOURCE_EXHAUSTED while another
  // run lives; INVALID_ARGUMENT when the transform-coded levels cannot code
  // such a model.
  virtual absl::StatusOr<std::unique_ptr<CalibrationRun>> BeginCalibration(
      const ModelSpec& model) = 0;

  // A session id that no other session of the cluster has.
  virtual SessionId OpenSession() = 0;
  // Releases every lease of the session, on every node. Idempotent.
  virtual void CloseSession(SessionId session) = 0;

  // All nodes of the configuration; dead nodes have alive = false.
  virtual void Status(absl::Time deadline,
                      Done<std::vector<NodeStatus>> done) = 0;
  virtual NodeId self() const = 0;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_NODE_SERVICE_H_
