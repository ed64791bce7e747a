#ifndef KDN_DELIVERY_FETCH_SESSION_H_
#define KDN_DELIVERY_FETCH_SESSION_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/status/status.h"
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

// One retrieve: decides which node to try for which chunk, when to give up on
// one, and what became of each chunk in the end.
//
// Events in (OnSize, OnAttempt, OpenWindow, RefuseWindow, Abandon), actions out
// (TakeAsks, outcomes). Keeps at most a window of chunks being fetched from
// peers at a time, so that a retrieve of any size needs bounded memory, and
// asks no peer before that memory is there. Reads at most kReadsHereMax chunks
// of this node at a time, whose storage lets only so many wait for its disk.
// Once a layer of a chunk was announced, only the same version may complete it:
// no delivery mixes two. Pure; thread-compatible.
class FetchSession {
 public:
  static constexpr int kReadsHereMax = 256;

  // `chunk_bytes` bounds what one chunk takes while it is fetched, `window_max`
  // what all take that are fetched at a time (but one always may be).
  FetchSession(NodeId self, std::vector<std::vector<NodeId>> read_orders,
               uint64_t chunk_bytes, uint64_t window_max);

  // Tries to make now, grouped by node. Call after every event.
  std::vector<Ask> TakeAsks();
  // The try of `chunk` at `node` ended: every chunk of every ask ends so, once.
  void OnAttempt(int chunk, const NodeId& node, const AttemptResult& result);
  // A peer sends `chunk`, and it takes no more than so many bytes: less than
  // what it was given room for, so others may be asked for meanwhile. Before
  // the try ends.
  void OnSize(int chunk, uint64_t bytes);
  // Bytes to have at hand before a peer may be asked: more than 0 while chunks
  // wait for OpenWindow.
  uint64_t WindowWanted() const;
  void OpenWindow() { window_open_ = true; }
  // There will be no such memory: no peer is asked, each fails with `why`.
  // What is here can still be delivered. REQUIRES: the window is not open.
  void RefuseWindow(const absl::Status& why);
  // Time is up, or nobody wants it any more: what is not settled has failed
  // with `why`. Tries under way still have to end before the session is done,
  // because they write into the engine's memory.
  void Abandon(const absl::Status& why);
  // If set, a try that delivers another version than this must fail.
  std::optional<ObjectVersion> pinned_version(int chunk) const {
    return pinned_[chunk];
  }

  // Chunks that wait for room in the window.
  int held_back() const;

  bool done() const { return walk_.done() && outstanding_ == 0; }
  // REQUIRES: done().
  std::vector<ChunkOutcome> Outcomes() const;

 private:
  // Those due, as far as there is room; the others are held back.
  std::vector<Ask> TakeSomeAsks();

  const NodeId self_;
  const uint64_t chunk_bytes_;
  const uint64_t window_bytes_;
  std::vector<ChunkOutcome> outcomes_;
  std::vector<std::optional<ObjectVersion>> pinned_;
  std::vector<uint64_t> taken_;  // of the window, by chunk
  ReplicaWalk walk_;
  // Asks to peers that wait for room in the window.
  std::vector<Ask> held_back_;
  // Asks to this node that wait for earlier ones to end.
  std::deque<int> due_here_;
  int reading_here_ = 0;
  bool window_open_ = false;
  absl::Status window_refused_;
  uint64_t window_used_ = 0;
  // Chunks asked for, held back ones included, whose try has not ended.
  int outstanding_ = 0;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_FETCH_SESSION_H_
