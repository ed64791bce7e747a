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
  // OK: every layer is in the destination, verified. NOT_FOUND: that node has
  // not got it. Anything else: it could not deliver.
  absl::Status status;
  // OK, but nothing was delivered: the engine had better recompute it.
  bool recompute = false;
  Level level = Level::kLossless;  // the least exact of its layers
  Tier tier = Tier::kMemory;
  ObjectVersion version;
  uint64_t wire_bytes = 0;
  // Some layer was announced to the engine before the try ended.
  bool announced = false;
};

// What one retrieve is about.
struct FetchTask {
  NodeId self;
  // For each chunk, the nodes to ask, in this order.
  std::vector<std::vector<NodeId>> read_orders;
  // Most bytes that one chunk takes while it is fetched from a peer.
  uint64_t chunk_bytes = 0;
  // Most bytes that the node lends to one retrieve. One chunk may always be
  // fetched.
  uint64_t memory_bytes_max = 0;
  absl::Time deadline;
  // What the engine would do instead; zero: it cannot say.
  double prefill_tokens_per_second = 0;
  LevelSet too_slow = {};  // to decode: recomputing is faster
  Reuse reuse = Reuse::kAnyChunk;
  // Chunks of the same call that other sessions fetch by the same deadline.
  int chunks_beside = 0;
};

// One retrieve: decides which node to try for which chunk and for how long, how
// many bytes a peer may send, when to give up on a node, whom to tell of a
// damaged copy, which fetches need not go on, and what became of each chunk in
// the end.
//
// Events in (OnSize, OnAttempt, OpenWindow, RefuseWindow, OnCancelled,
// OnDeadline), actions out (TakeActions). Keeps at most a window of chunks
// being fetched from peers at a time, so that a retrieve of any size needs
// bounded memory, and asks no peer before that memory is there. Reads at most
// kReadsHereMax chunks of this node at a time, whose storage lets only so many
// wait for its disk. Once a layer of a chunk was announced, only the same
// version may complete it: no delivery mixes two. Pure; thread-compatible.
class FetchSession {
 public:
  static constexpr int kReadsHereMax = 256;
  // Most bytes of one retrieve that are being fetched from peers at a time:
  // several retrieves share the node's memory.
  static constexpr uint64_t kWindowBytesMax = 64u << 20;

  // Bytes a second that come from a peer, as measured; unset: unknown.
  using RateOf = absl::FunctionRef<std::optional<double>(const NodeId&)>;

  // REQUIRES: task.chunk_bytes > 0.
  explicit FetchSession(FetchTask task);

  // What to do now. Call once at the beginning and after every event.
  std::vector<FetchAction> TakeActions(absl::Time now, RateOf rate_of);
  // The try of `chunk` at `node` ended: every chunk of every ReadHere and
  // FetchFrom ends so, once.
  void OnAttempt(int chunk, const NodeId& node, const AttemptResult& result);
  // A peer sends `chunk`, which takes at most `bytes` of memory: less than the
  // room it was given, so others may be asked for meanwhile. Before the try
  // ends.
  void OnSize(int chunk, uint64_t bytes);
  void OpenWindow();
  // There will be no such memory: no peer is asked, and the chunks that need
  // one fail with `why`. Chunks of this node can still be delivered. REQUIRES:
  // the window is not open.
  void RefuseWindow(const absl::Status& why);
  // The engine went away: no other node is asked. Idempotent.
  void OnCancelled();
  // Time is up: chunks that are not settled have failed.
  void OnDeadline();

  // Every chunk is settled and every try has ended. A try under way keeps the
  // session from being done, because it writes into the engine's memory.
  bool done() const { return walk_.done() && outstanding_ == 0; }
  void CheckInvariants() const;

 private:
  // Tries to make now, grouped by node.
  std::vector<Ask> TakeAsks();
  // Those due, as far as there is room; the others are held back.
  std::vector<Ask> TakeSomeAsks();
  // The part of `ask` that the window has room for; the rest is held back.
  Ask TakeRoom(Ask ask);
  Ask TakeReadsHere();
  void AddReads(const Ask& ask, absl::Time now,
                std::vector<FetchAction>& actions) const;
  // In as many requests as it takes.
  void AddFetches(const Ask& ask, absl::Time now, RateOf rate_of,
                  std::vector<FetchAction>& actions);
  // Fetches of which no chunk is wanted any more.
  void AddStops(std::vector<FetchAction>& actions);
  void OnDamage(int chunk, const NodeId& node, ObjectVersion version);
  // Whatever is not settled has failed with `why`.
  void Abandon(const absl::Status& why);
  // Chunks that wait for room in the window.
  size_t held_back() const;
  ChunkWanted Wanted(int chunk) const { return {chunk, pinned_[chunk]}; }
  // REQUIRES: done().
  std::vector<ChunkOutcome> Outcomes() const;

  FetchTask task_;
  const uint64_t window_bytes_;
  std::vector<ChunkOutcome> outcomes_;
  std::vector<std::optional<ObjectVersion>> pinned_;
  std::vector<uint64_t> taken_;  // of the window, by chunk
  // Chunks whose try has not ended, by fetch under way.
  std::map<int, std::set<int>> fetching_;
  std::vector<int> fetch_of_;  // by chunk, while a peer is asked for it
  int next_fetch_ = 0;
  ReplicaWalk walk_;
  // Asks to peers that wait for room in the window.
  std::vector<Ask> held_back_;
  // Asks to this node that wait for earlier ones to end.
  std::deque<int> due_here_;
  // Actions that do not depend on the time.
  std::vector<FetchAction> due_actions_;
  int reading_here_ = 0;
  bool window_asked_ = false;
  bool window_open_ = false;
  absl::Status window_refused_;
  uint64_t window_used_ = 0;
  // Chunks asked for, held back ones included, whose try has not ended.
  int outstanding_ = 0;
  bool answered_ = false;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_FETCH_SESSION_H_
