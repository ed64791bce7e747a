#ifndef KDN_TRANSFER_LINK_BOOK_H_
#define KDN_TRANSFER_LINK_BOOK_H_

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "delivery/link_rate.h"
#include "delivery/rate_report.h"
#include "kv/ids.h"
#include "kv/metric_values.h"

namespace kdn::transfer {

// What a node has learnt about the links from its peers: their rates, and how
// predictions compare with deliveries. Has no clock. Thread-safe.
class LinkBook {
 public:
  // See delivery::LinkRate.
  void OnTransfer(const NodeId& peer, uint64_t bytes, absl::Duration took,
                  absl::Time now);
  std::optional<double> BytesPerSecond(const NodeId& peer,
                                       absl::Time now) const;

  void Count(const delivery::DeliveryReport& report);
  // The metrics that begin with "rate.".
  MetricValues counters() const;

 private:
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<NodeId, delivery::LinkRate> links_
      ABSL_GUARDED_BY(mutex_);
  MetricValues counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_LINK_BOOK_H_
