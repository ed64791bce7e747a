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
  std::vector<NodeId> owners;  // live owner order, at least one
  int copies = 1;              // wanted
  Durability durability = Durability::kReplicated;
  absl::Time expires = absl::InfinitePast();  // TTL; InfinitePast: none
  absl::Time deadline;
};

// One store once its object is encoded: decides which nodes get a copy, in what
// order and until when, whose bytes they get, and when the engine is told.
//
// The first owner that can takes it alone, so that of two stores of one key one
// wins there; then the other owners get the winner's bytes. When that is
// another store, its node hands them on, and only as many as are promised. A
// node that fails is replaced by the next in owner order; a node may take half
// of the time that is left, most of it for room, so that the walk still reaches
// a node that has some. Answers once as many copies of one version are held as
// the durability asks for; copies still under way then go on. Events in
// (OnSent, OnDeadline), actions out (TakeActions). Pure; thread-compatible.
class StoreSession {
 public:
  explicit StoreSession(StoreTask task);

  // What to do now. Call once at the beginning and after every event.
  std::vector<StoreAction> TakeActions(absl::Time now);
  // A node that was to get a copy has answered: OK means it holds the object at
  // the durability asked for.
  void OnSent(const NodeId& node, const absl::StatusOr<PushReceipt>& result);
  void OnDeadline();

  // Nothing more will happen.
  bool done() const { return answered_ && sending_.empty(); }
  void CheckInvariants() const;

 private:
  // Nodes to hand the object to now: ours, or the winner's.
  std::vector<NodeId> TakeSends();
  StoreAction SendTo(const NodeId& node, absl::Time now) const;
  int wanted_acks() const;
  // Another store of this key has won.
  bool lost() const {
    return !receipt_.holders.empty() && receipt_.version != task_.version;
  }
  void Decide();
  absl::Status TooFewCopies() const;

  const StoreTask task_;
  size_t next_ = 0;  // owners before it have been tried
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
