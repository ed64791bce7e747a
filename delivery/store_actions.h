#ifndef KDN_DELIVERY_STORE_ACTIONS_H_
#define KDN_DELIVERY_STORE_ACTIONS_H_

#include <optional>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/deadlines.h"
#include "kv/answers.h"
#include "kv/ids.h"

// What a StoreSession tells its driver to do. Values. The driver calls OnSent
// at the end of each CommitHere, PushTo and CopyFrom.
namespace kdn::delivery {

// Make the object visible in this node's partition.
struct CommitHere {
  // Set: the object was built in passing memory. Copy it into the partition's
  // memory first, and wait for room there until this time. Without the copy the
  // passing memory would be in use until the partition evicts the object.
  std::optional<absl::Time> copy_until;
};

// Send the object to a peer.
struct PushTo {
  NodeId peer;
  absl::Time deadline;
};

// Another store of this key has won: ask a node that holds the winning object
// to send that object to another node.
struct CopyFrom {
  NodeId winner;  // the node that holds the winning object
  NodeId to;
  ObjectVersion version;  // of the winning object
  absl::Time deadline;
  absl::Duration ttl;  // the rest of the object's TTL; zero: no TTL
};

// Answer the engine. Copies that are still under way go on.
struct AnswerStore {
  absl::StatusOr<StoreReceipt> receipt;
};

// Every copy has ended: the last action.
struct StoreIsOver {};

using StoreAction = std::variant<CommitHere, PushTo, CopyFrom, AwaitDeadline,
                                 AnswerStore, StoreIsOver>;

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_STORE_ACTIONS_H_
