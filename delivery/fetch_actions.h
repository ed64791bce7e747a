#ifndef KDN_DELIVERY_FETCH_ACTIONS_H_
#define KDN_DELIVERY_FETCH_ACTIONS_H_

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "delivery/deadlines.h"
#include "delivery/rate_control.h"
#include "kv/answers.h"
#include "kv/ids.h"

// What a FetchSession tells its driver to do. Values: chunks are numbers in the
// retrieve's list of chunks.
namespace kdn::delivery {

// A chunk to be read.
struct ChunkWanted {
  int chunk = 0;
  // The only version that may be delivered. Unset: any, because no layer of the
  // chunk has been announced yet.
  std::optional<ObjectVersion> pinned = std::nullopt;
};

// Read a chunk from this node's storage and decode it. Call OnAttempt at the
// end.
struct ReadHere {
  ChunkWanted wanted;
  absl::Time deadline;
};

// Fetch some chunks from a peer, in one request. Call OnAttempt at the end of
// each chunk.
struct FetchFrom {
  int fetch = 0;  // the number of this fetch in the session
  NodeId peer;
  std::vector<ChunkWanted> wanted;  // at most kItemsPerFetchMax
  // The budget was made from this target. Its deadline is the deadline of the
  // request to the peer.
  DeliveryTarget target;
  SendBudget budget;
};

// Nobody wants the chunks of a fetch any more: let the peer stop sending.
// OnAttempt must still be called at the end of each chunk.
struct StopFetch {
  int fetch = 0;
};

// Ask for memory to fetch into. The driver answers with OpenWindow or
// RefuseWindow, or not at all after WithdrawWindow.
struct AskWindow {
  uint64_t bytes = 0;
  absl::Time deadline;
};

// The memory of AskWindow is not needed any more: withdraw the request for it.
struct WithdrawWindow {};

// The peer's copy of a chunk arrived damaged: let the peer verify its copy.
struct TellSuspect {
  NodeId peer;
  int chunk = 0;
  ObjectVersion version;
};

// This node's copy of a chunk is damaged: drop it.
struct DiscardHere {
  int chunk = 0;
  ObjectVersion version;
};

// The retrieve is over: the last action.
struct AnswerRetrieve {
  std::vector<ChunkOutcome> outcomes;  // one for each chunk
};

using FetchAction =
    std::variant<ReadHere, FetchFrom, StopFetch, AskWindow, WithdrawWindow,
                 TellSuspect, DiscardHere, AwaitDeadline, AnswerRetrieve>;

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_FETCH_ACTIONS_H_
