#ifndef KDN_DELIVERY_LEASE_SESSION_H_
#define KDN_DELIVERY_LEASE_SESSION_H_

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "delivery/pending_asks.h"
#include "kv/ids.h"

namespace kdn::delivery {

// The actors' messages carry these numbers.
enum class LeaseOp : uint8_t { kPin = 0, kUnpin = 1, kRemove = 2 };

// The input of one pin, unpin or removal.
struct LeaseTask {
  LeaseOp op = LeaseOp::kPin;
  // For each chunk, the live nodes that may hold a copy.
  std::vector<std::vector<NodeId>> owners;
  // For each chunk, a node that may hold a copy but is not alive; unset: every
  // node that may hold a copy is alive.
  std::vector<std::optional<NodeId>> away;
  std::vector<ShardId> shards;  // by chunk
  PartitionCounts partitions;
  absl::Time deadline;
};

// An action: ask a partition of a node for the change. Call OnAnswer or
// OnNoAnswer at the end.
struct AskLease {
  int number = 0;
  NodeId node;
  uint32_t partition = 0;
  std::vector<int> chunks;
  absl::Time deadline;
};

// The change is over: the last action.
struct AnswerLease {
  std::vector<absl::Status> statuses;  // one for each chunk
};

using LeaseAction = std::variant<AskLease, WakeAt, AnswerLease>;

// Merges the answers of two owners for one chunk. An error of a removal wins,
// because the copy still exists. OK of a pin or unpin wins, because one pinned
// copy keeps the chunk. NOT_FOUND always loses.
absl::Status MergeLeases(LeaseOp op, const absl::Status& one,
                         const absl::Status& other);

// One pin, unpin or removal. Asks every owner that may hold a copy, because
// each copy has leases of its own. A removal fails while an owner is away,
// because that owner may come back with a copy. An owner that dies counts at
// once as an owner that does not answer. Events in (OnAnswer, OnNoAnswer,
// OnTime), actions out (TakeActions). Pure; thread-compatible.
class LeaseSession {
 public:
  explicit LeaseSession(LeaseTask task);

  // What to do now. Call once at the beginning and after every event.
  std::vector<LeaseAction> TakeActions(absl::Time now);
  // `statuses`: one for each chunk of the ask, in its order. Ignored when the
  // ask has ended.
  void OnAnswer(int number, const std::vector<absl::Status>& statuses);
  // The partition refused to answer, or could not be reached.
  void OnNoAnswer(int number);
  // The time of a WakeAt has come.
  void OnTime(absl::Time now, IsLive is_live);

  bool done() const { return begun_ && pending_.empty(); }
  void CheckInvariants() const;

 private:
  void AddAsks(std::vector<LeaseAction>& actions);
  void MergeAll(const Ask& ask, const absl::Status& status);
  void MergeAway();

  const LeaseTask task_;
  PendingAsks pending_;
  std::vector<absl::Status> merged_;
  bool begun_ = false;
  bool answered_ = false;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_LEASE_SESSION_H_
