#ifndef KDN_TRANSFER_HEALTH_BOOK_H_
#define KDN_TRANSFER_HEALTH_BOOK_H_

#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "delivery/peer_health.h"
#include "kv/ids.h"

namespace kdn::transfer {

// What a node has learnt about how well its peers answer: a
// delivery::PeerHealth for each peer. Has no clock. Thread-safe.
class HealthBook {
 public:
  // See delivery::PeerHealth.
  void OnAsk(const NodeId& peer, absl::Time now);
  void OnBegin(const NodeId& peer, absl::Time now);
  void OnAnswer(const NodeId& peer, absl::Time began, absl::Time now);
  void OnProgress(const NodeId& peer, absl::Time now);
  void OnEnd(const NodeId& peer, delivery::FetchEnd end, bool answered,
             absl::Time began, absl::Time now);
  // The grades of the peers that are failing or have a known latency.
  delivery::PeerGrades GradesAt(absl::Time now) const;

 private:
  mutable absl::Mutex mutex_;
  std::map<NodeId, delivery::PeerHealth> peers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_HEALTH_BOOK_H_
