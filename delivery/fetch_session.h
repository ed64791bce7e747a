#ifndef KDN_DELIVERY_FETCH_SESSION_H_
#define KDN_DELIVERY_FETCH_SESSION_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "delivery/fetch_actions.h"
#include "delivery/node_service.h"
#include "delivery/replica_walk.h"
#include "kv/ids.h"

namespace kdn::delivery {

// How one try to get one chunk from one node ended.
struct AttemptResult {
  // OK: every layer is in the destination and verified. NOT_FOUND: the node
  // does not hold the chunk. Any other error: the node could not deliver the
  // chunk.
  absl::Status status;
  // True with an OK status: nothing was delivered, because the engine
  // recomputes the chunk faster, or there was no time to send it.
  bool recompute = false;
  Level level = Level::kLossless;  // the least exact of its layers
  Tier tier = Tier::kMemory;
  ObjectVersion version;
  uint64_t wire_bytes = 0;
  // Some layer was announced to the engine before the try ended.
  bool announced = false;
};

// The input of one retrieve.
struct FetchTask {
  NodeId self;
  // For each chunk, the nodes to ask, in this order.
  std::vector<std::vector<NodeId>> read_orders;
  // The most bytes that one chunk takes while it is fetched from a peer.
  uint64_t chunk_bytes = 0;
  // The most bytes that the node lends to one retrieve. A retrieve may ask for
  // the memory of one chunk even if that is more.
  uint64_t memory_bytes_max = 0;
  absl::Time deadline;
  // How fast the engine prefills; zero: unknown.
  double prefill_tokens_per_second = 0;
  LevelSet too_slow = {};  // levels whose decoding is slower than prefilling
  Reuse reuse = Reuse::kAnyChunk;
  // How many chunks of the same call other sessions fetch by the same deadline.
  int chunks_beside = 0;
};

// One retrieve: decides which node to try for which chunk and for how long, how
// many bytes a peer may send, when to give up on a node, which node is told of
// a damaged copy, which fetches stop early, and the outcome of each chunk.
//
// Events in (OnSize, OnAttempt, OpenWindow, RefuseWindow, OnCancelled,
// OnDeadline), actions out (TakeActions).
//
// Memory. The window is the memory for chunks that are being fetched from
// peers. It bounds the memory of a retrieve of any size. No peer is asked
// before the node has granted the window.
//
// Versions. Once a layer of a chunk was announced, only the same version may
// complete the chunk, so no delivery mixes two versions.
//
// Pure; thread-compatible.
class FetchSession {
 public:
  // The most chunks of this node that are read at a time: the node's storage
  // lets only a limited number of reads wait for its disk.
  static constexpr int kReadsHereMax = 256;
  // The most bytes of a window: several retrieves share the node's memory.
  static constexpr uint64_t kWindowBytesMax = 64u << 20;

  // The measured rate at which bytes come from a peer; unset: unknown.
  using RateOf = absl::FunctionRef<std::optional<double>(const NodeId&)>;

  // REQUIRES: task.chunk_bytes > 0.
  explicit FetchSession(FetchTask task);

  // What to do now. Call once at the beginning and after every event.
  std::vector<FetchAction> TakeActions(absl::Time now, RateOf rate_of);
  // The try of `chunk` at `node` ended. Call it once for every chunk of every
  // ReadHere and FetchFrom.
  void OnAttempt(int chunk, const NodeId& node, const AttemptResult& result);
  // A peer sends `chunk`, which takes at most `bytes` of memory. When that is
  // less than was reserved for the chunk, the rest is free for other chunks.
  // Call it before the try ends.
  void OnSize(int chunk, uint64_t bytes);
  // The node has granted the window.
  void OpenWindow();
  // The node does not grant the window: no peer is asked, and the chunks that
  // need a peer fail with `why`. Chunks of this node can still be delivered.
  // REQUIRES: the window is not open.
  void RefuseWindow(const absl::Status& why);
  // The engine gave up: no other node is asked. Idempotent.
  void OnCancelled();
  // The deadline has come: chunks that are not settled have failed.
  void OnDeadline();

  // True when every chunk is settled and every try has ended. The session is
  // not done while a try is under way, because the try writes into the engine's
  // memory.
  bool done() const { return walk_.done() && outstanding_ == 0; }
  void CheckInvariants() const;

 private:
  // The tries to make now, grouped by node.
  std::vector<Ask> TakeAsks();
  // The due tries for which there is room. The other due tries are held back.
  std::vector<Ask> TakeSomeAsks();
  // The part of `ask` that fits into the window. The rest is held back.
  Ask TakeRoom(Ask ask);
  // The next reads of this node, up to kReadsHereMax.
  Ask TakeReadsHere();
  void AddReads(const Ask& ask, absl::Time now,
                std::vector<FetchAction>& actions) const;
  // Adds as many fetches as the ask needs: a fetch has a limited size.
  void AddFetches(const Ask& ask, absl::Time now, RateOf rate_of,
                  std::vector<FetchAction>& actions);
  // Stops the fetches that have no wanted chunk left.
  void AddStops(std::vector<FetchAction>& actions);
  // Asks for the window when a chunk waits for it, and withdraws the request
  // when no chunk waits any more.
  void AddWindow(std::vector<FetchAction>& actions);
  void OnDamage(int chunk, const NodeId& node, ObjectVersion version);
  // Lets every chunk that is not settled fail with `why`.
  void Abandon(const absl::Status& why);
  // How many chunks wait for room in the window.
  size_t held_back() const;
  ChunkWanted Wanted(int chunk) const { return {chunk, pinned_[chunk]}; }
  // REQUIRES: done().
  std::vector<ChunkOutcome> Outcomes() const;

  FetchTask task_;
  const uint64_t window_bytes_;
  std::vector<ChunkOutcome> outcomes_;
  std::vector<std::optional<ObjectVersion>> pinned_;
  std::vector<uint64_t> taken_;  // by chunk: bytes of the window
  // By fetch under way: the chunks whose try has not ended.
  std::map<int, std::set<int>> fetching_;
  std::vector<int> fetch_of_;  // by chunk; -1: no peer is asked for it
  int next_fetch_ = 0;
  ReplicaWalk walk_;
  // Asks to peers that wait for room in the window.
  std::vector<Ask> held_back_;
  // Chunks of this node that wait until earlier reads have ended.
  std::deque<int> due_here_;
  // Actions that do not depend on the time.
  std::vector<FetchAction> due_actions_;
  int reading_here_ = 0;
  bool window_asked_ = false;  // and not yet answered or withdrawn
  bool window_open_ = false;
  absl::Status window_refused_;
  uint64_t window_used_ = 0;
  // How many chunks have a try that has not ended. A chunk that is held back or
  // due here counts too.
  int outstanding_ = 0;
  bool answered_ = false;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_FETCH_SESSION_H_
