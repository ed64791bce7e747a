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

// The numbers are those of the actors' messages.
enum class LeaseOp : uint8_t { kPin = 0, kUnpin = 1, kRemove = 2 };

// What one pin, unpin or removal is about.
struct LeaseTask {
  LeaseOp op = LeaseOp::kPin;
  // For each chunk, the live nodes that may hold a copy.
  std::vector<std::vector<NodeId>> owners;
  // For each chunk, a node that may hold a copy and is not alive, if there is
  // one.
  std::vector<std::optional<NodeId>> away;
  std::vector<ShardId> shards;  // of each chunk
  PartitionCounts partitions;
  absl::Time deadline;
};

// An action: ask a partition of a node for the change. Ends with OnAnswer or
// OnNoAnswer.
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

// What the answers of two owners for one chunk come to. A copy that could not
// be removed still exists, so its error must show; one copy pinned is enough to
// keep the chunk. NOT_FOUND says nothing.
absl::Status MergeLeases(LeaseOp op, const absl::Status& one,
                         const absl::Status& other);

// One pin, unpin or removal: asks every owner that may hold a copy, because
// each copy has leases of its own. A removal is not done while one of the
// owners is away, because that owner may come back with a copy. An owner that
// dies while it is asked counts as one that does not answer, at once. Events in
// (OnAnswer, OnNoAnswer, OnTime), actions out (TakeActions). Pure;
// thread-compatible.
class LeaseSession {
 public:
  explicit LeaseSession(LeaseTask task);

  // What to do now. Call once at the beginning and after every event.
  std::vector<LeaseAction> TakeActions(absl::Time now);
  // A status for each chunk of the ask, in that order. Ignored when the ask has
  // ended.
  void OnAnswer(int number, const std::vector<absl::Status>& statuses);
  // The partition refuses to answer, or cannot be reached.
  void OnNoAnswer(int number);
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
  bool wake_due_ = true;
  bool answered_ = false;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_LEASE_SESSION_H_
