#ifndef KDN_DELIVERY_REPLICA_WALK_H_
#define KDN_DELIVERY_REPLICA_WALK_H_

#include <vector>

#include "absl/status/status.h"
#include "kv/ids.h"

namespace kdn::delivery {

// Some items, to be asked for at the same node together.
struct Ask {
  NodeId node;
  std::vector<int> items;
};

// Walks many items through their owner orders at once: each item is at one
// candidate at a time, moves to the next when that one has not got it, and is
// settled once found or out of candidates.
//
// Invariant (CheckInvariants): every item is settled, asked (at exactly one
// node) or due to be asked. Pure; thread-compatible.
class ReplicaWalk {
 public:
  // One owner order per item; an empty one settles the item at once.
  explicit ReplicaWalk(std::vector<std::vector<NodeId>> candidates);

  // Items due to be asked, grouped by node, in item order; they count as asked
  // from now on.
  std::vector<Ask> TakeAsks();
  // The item is settled: found. REQUIRES: asked.
  void Found(int item);
  // Its candidate has not got it (NOT_FOUND) or could not say (any other
  // error): due at the next candidate, or settled. REQUIRES: asked.
  void MoveOn(int item, const absl::Status& why);
  // Nothing will be asked any more: whatever is not settled is, with `why`.
  void Abandon(const absl::Status& why);

  bool done() const { return unsettled_ == 0; }
  bool asked(int item) const { return items_[item].phase == Phase::kAsked; }
  // REQUIRES: asked.
  const NodeId& node(int item) const;
  // Of an item settled without being found: NOT_FOUND when every candidate
  // said so, else the first other error met.
  const absl::Status& why(int item) const { return items_[item].why; }
  void CheckInvariants() const;

 private:
  enum class Phase { kDue, kAsked, kSettled };
  struct Item {
    std::vector<NodeId> candidates;
    size_t at = 0;
    Phase phase = Phase::kDue;
    absl::Status why;
  };
  void Settle(Item& item);

  std::vector<Item> items_;
  int unsettled_ = 0;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_REPLICA_WALK_H_
