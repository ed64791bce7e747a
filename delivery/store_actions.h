#ifndef KDN_DELIVERY_STORE_ACTIONS_H_
#define KDN_DELIVERY_STORE_ACTIONS_H_

#include <optional>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/deadlines.h"
#include "kv/answers.h"
#include "kv/ids.h"

// What a StoreSession tells its driver to do. Values. CommitHere, PushTo and
// CopyFrom each end with OnSent.
namespace kdn::delivery {

// Make the object visible in this node's partition.
struct CommitHere {
  // Set: the object was built in passing. Copy it into the partition's memory
  // first, and wait for room there until then. Passing memory that became a
  // partition's would never be given back: evicting is the partition's
  // business, and passing memory has no say in it.
  std::optional<absl::Time> copy_until;
};

// Send the object to a peer.
struct PushTo {
  NodeId peer;
  absl::Time deadline;
};

// Another store of this key has won: ask the node that holds the winner's
// object to send that object to another node.
struct CopyFrom {
  NodeId winner;
  NodeId to;
  ObjectVersion version;  // the winner's
  absl::Time deadline;
  absl::Duration ttl;  // left of the object's TTL; zero: none
};

// Tell the engine. Copies that are still under way go on.
struct AnswerStore {
  absl::StatusOr<StoreReceipt> receipt;
};

// Every copy is accounted for: the last action.
struct StoreIsOver {};

using StoreAction = std::variant<CommitHere, PushTo, CopyFrom, AwaitDeadline,
                                 AnswerStore, StoreIsOver>;

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_STORE_ACTIONS_H_
