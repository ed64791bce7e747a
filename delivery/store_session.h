#ifndef KDN_DELIVERY_STORE_SESSION_H_
#define KDN_DELIVERY_STORE_SESSION_H_

#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/node_service.h"
#include "delivery/peer_transport.h"
#include "delivery/store_actions.h"
#include "delivery/store_plan.h"
#include "kv/ids.h"

namespace kdn::delivery {

// An encoded object to be stored.
struct StoreTask {
  NodeId self;
  ChunkKey key;
  ObjectVersion version;
  uint64_t bytes = 0;
  BuildPlace built = BuildPlace::kPartition;
  std::vector<NodeId> owners;  // the live ones in owner order, at least one
  int copies = 1;              // how many copies are wanted
  Durability durability = Durability::kReplicated;
  absl::Time expires = absl::InfinitePast();  // InfinitePast: no TTL
  absl::Time deadline;
};

// One store after its object is encoded: decides which nodes get a copy, in
// what order and until when, which store's bytes they get, and when the engine
// is answered.
//
// Winner. One owner at a time is asked until an owner holds the object. If two
// stores of a key run at the same time, that owner decides which store wins.
// Then the other owners get the winner's bytes. If another store has won, the
// node that holds its object sends them, and only as many copies are made as
// the durability promises.
//
// Failures. A node that fails is replaced by the next node in owner order. A
// node may take half of the time that is left. A node without room uses this
// time to wait for room, and time remains to reach a node with room.
//
// The engine is answered once as many copies of one version are held as the
// durability promises. Copies that are under way then go on.
//
// Events in (OnSent, OnDeadline), actions out (TakeActions). Pure;
// thread-compatible.
class StoreSession {
 public:
  explicit StoreSession(StoreTask task);

  // What to do now. Call once at the beginning and after every event.
  std::vector<StoreAction> TakeActions(absl::Time now);
  // The attempt to give `node` a copy has ended. OK: the node holds the object
  // at the requested durability.
  void OnSent(const NodeId& node, const absl::StatusOr<PushReceipt>& result);
  void OnDeadline();

  // True when the engine is answered and every copy has ended.
  bool done() const { return answered_ && sending_.empty(); }
  void CheckInvariants() const;

 private:
  // The nodes that get a copy now.
  std::vector<NodeId> TakeSends();
  StoreAction SendTo(const NodeId& node, absl::Time now) const;
  int wanted_acks() const;
  // True when another store of this key has won.
  bool lost() const {
    return !receipt_.holders.empty() && receipt_.version != task_.version;
  }
  void Decide();
  absl::Status TooFewCopies() const;

  const StoreTask task_;
  size_t next_ = 0;  // the next owner to try
  std::set<NodeId> sending_;
  StoreReceipt receipt_;
  absl::Status last_error_;
  absl::StatusOr<StoreReceipt> answer_ = absl::UnknownError("undecided");
  bool begun_ = false;
  bool decided_ = false;
  bool answered_ = false;
  bool over_ = false;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_STORE_SESSION_H_
