#ifndef KDN_DELIVERY_REPLICA_WALK_H_
#define KDN_DELIVERY_REPLICA_WALK_H_

#include <vector>

#include "absl/status/status.h"
#include "kv/ids.h"

namespace kdn::delivery {

// Some items that one node is asked for together.
struct Ask {
  NodeId node;
  std::vector<int> items;
};

// Walks many items through their candidates (nodes) at once. Each item is at
// one candidate at a time. It moves to the next candidate when the present one
// does not have it. It is settled when it was found or has no candidates left.
//
// Invariant (CheckInvariants): every item is settled, asked (at exactly one
// node) or due to be asked. Pure; thread-compatible.
class ReplicaWalk {
 public:
  // `candidates`: by item. An item without candidates is settled at once.
  explicit ReplicaWalk(std::vector<std::vector<NodeId>> candidates);

  // The items that are due, grouped by node, in item order. They count as asked
  // from now on.
  std::vector<Ask> TakeAsks();
  // Settles the item as found. REQUIRES: asked(item).
  void Found(int item);
  // The candidate does not have the item (NOT_FOUND) or could not answer (any
  // other error). The item is due at its next candidate, or settled after the
  // last one. REQUIRES: asked(item).
  void MoveOn(int item, const absl::Status& why);
  // Settles every item that is not settled, with `why`.
  void Abandon(const absl::Status& why);

  bool done() const { return unsettled_ == 0; }
  bool asked(int item) const { return items_[item].phase == Phase::kAsked; }
  // The candidate that is asked. REQUIRES: asked(item).
  const NodeId& node(int item) const;
  // OK for an item that was found; the reason of Abandon for an abandoned item.
  // For an item without candidates left: NOT_FOUND when every candidate said
  // so, else the first other error.
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
