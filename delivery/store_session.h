#ifndef KDN_DELIVERY_STORE_SESSION_H_
#define KDN_DELIVERY_STORE_SESSION_H_

#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "delivery/node_service.h"
#include "delivery/peer_transport.h"
#include "kv/ids.h"

namespace kdn::delivery {

// One store once its object is encoded: decides which nodes get a copy, in what
// order, and when the engine is told.
//
// The first owner that can takes it alone, so that of two stores of one key one
// wins there; then the other owners get the winner's bytes. When that is
// another store, its node hands them on, and only as many as are promised. A
// node that fails is replaced by the next in owner order. Answers once as many
// copies of one version are held as the durability asks for; copies still under
// way then go on. Events in, actions out. Pure; thread-compatible.
class StoreSession {
 public:
  // `version`: of the object to store. `owners`: live owner order, at least
  // one. `replicas`: copies wanted.
  StoreSession(ObjectVersion version, std::vector<NodeId> owners, int replicas,
               Durability durability);

  // Nodes to hand the object to now: ours, or the winner's. Call after every
  // event.
  std::vector<NodeId> TakeSends();
  // Who holds the object that the sends taken are of: null when it is ours.
  const NodeId* winner() const {
    return lost() ? &receipt_.holders.front() : nullptr;
  }
  // REQUIRES: winner() is not null.
  ObjectVersion winner_version() const { return receipt_.version; }
  // A node that TakeSends named has answered: OK means it holds the object at
  // the durability asked for.
  void OnSent(const NodeId& node, const absl::StatusOr<PushReceipt>& result);
  void OnDeadline();

  // True once, when the answer has come about.
  bool TakeAnswer(absl::StatusOr<StoreReceipt>* answer);
  // Nothing more will happen.
  bool done() const { return answered_ && sending_.empty(); }

 private:
  int wanted_acks() const;
  // Another store of this key has won.
  bool lost() const {
    return !receipt_.holders.empty() && receipt_.version != version_;
  }
  void Decide();

  const ObjectVersion version_;
  std::vector<NodeId> owners_;
  const int replicas_;
  const Durability durability_;
  size_t next_ = 0;  // owners before it have been tried
  std::set<NodeId> sending_;
  StoreReceipt receipt_;
  absl::Status last_error_;
  absl::StatusOr<StoreReceipt> answer_ = absl::UnknownError("undecided");
  bool decided_ = false;
  bool answered_ = false;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_STORE_SESSION_H_
