#include "transfer/link_book.h"

namespace kdn::transfer {

void LinkBook::OnTransfer(const NodeId& peer, uint64_t bytes,
                          absl::Duration took, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  links_[peer].OnTransfer(bytes, took, now);
}

std::optional<double> LinkBook::BytesPerSecond(const NodeId& peer,
                                               absl::Time now) const {
  absl::MutexLock lock(&mutex_);
  const auto it = links_.find(peer);
  return it == links_.end() ? std::nullopt : it->second.BytesPerSecond(now);
}

void LinkBook::Count(const delivery::DeliveryReport& report) {
  absl::MutexLock lock(&mutex_);
  delivery::Count(report, counters_);
}

MetricValues LinkBook::counters() const {
  absl::MutexLock lock(&mutex_);
  return counters_;
}

}  // namespace kdn::transfer
