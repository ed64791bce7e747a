#ifndef KDN_DELIVERY_LOOKUP_SESSION_H_
#define KDN_DELIVERY_LOOKUP_SESSION_H_

#include <cstdint>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "delivery/pending_asks.h"
#include "delivery/replica_walk.h"
#include "kv/answers.h"
#include "kv/ids.h"

namespace kdn::delivery {

// The input of one lookup.
struct LookupTask {
  // For each chunk, the nodes to ask, in this order.
  std::vector<std::vector<NodeId>> read_orders;
  std::vector<ShardId> shards;  // by chunk
  PartitionCounts partitions;
  absl::Time deadline;
};

// An action: ask a partition of a node which of some chunks it holds. Call
// OnAnswer or OnNoAnswer at the end.
struct AskLookup {
  int number = 0;
  NodeId node;
  uint32_t partition = 0;
  std::vector<int> chunks;
  absl::Time deadline;
};

// The lookup is over: the last action.
struct AnswerLookup {
  std::vector<LookupResult> results;  // one for each chunk
};

using LookupAction = std::variant<AskLookup, WakeAt, AnswerLookup>;

// One lookup: walks every chunk through its owner order until a node has it.
// Passes over a node that is dead, dies, refuses, cannot be reached, or answers
// for a wrong number of chunks. A chunk that is not found by the deadline is a
// miss. Events in (OnAnswer, OnNoAnswer, OnTime), actions out (TakeActions).
// Pure; thread-compatible.
class LookupSession {
 public:
  explicit LookupSession(LookupTask task);

  // What to do now. Call once at the beginning and after every event.
  std::vector<LookupAction> TakeActions(absl::Time now);
  // `found`: one result for each chunk of the ask, in its order. Ignored when
  // the ask has ended.
  void OnAnswer(int number, const std::vector<LookupResult>& found);
  // The partition refused to answer, or could not be reached.
  void OnNoAnswer(int number);
  // The time of a WakeAt has come.
  void OnTime(absl::Time now, IsLive is_live);

  bool done() const { return walk_.done(); }
  void CheckInvariants() const;

 private:
  void AddAsks(std::vector<LookupAction>& actions);
  void MoveOn(const Ask& ask, const absl::Status& why);

  const std::vector<ShardId> shards_;
  const PartitionCounts partitions_;
  ReplicaWalk walk_;
  PendingAsks pending_;
  std::vector<LookupResult> results_;
  bool answered_ = false;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_LOOKUP_SESSION_H_
