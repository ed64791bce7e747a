#ifndef KDN_TESTS_ACTORS_NO_TRANSPORT_H_
#define KDN_TESTS_ACTORS_NO_TRANSPORT_H_

#include <memory>
#include <vector>

#include "absl/synchronization/notification.h"
#include "delivery/peer_transport.h"

namespace kdn::actors {

// A transport without peers. Notifies the test when the node begins to stop.
class NoTransport final : public delivery::PeerTransport {
 public:
  delivery::FetchId Fetch(delivery::FetchRequest,
                          std::unique_ptr<delivery::FetchSink> sink) override {
    sink->OnDone(absl::UnavailableError("no peers"));
    return {};
  }
  void CancelFetch(delivery::FetchId) override {}
  void Push(
      delivery::PushRequest,
      delivery::Done<absl::StatusOr<delivery::PushReceipt>> done) override {
    done(absl::UnavailableError("no peers"));
  }
  void FetchCalibration(
      const NodeId&, const codec::CalibrationId&, uint64_t, absl::Time,
      delivery::Done<absl::StatusOr<std::vector<std::byte>>> done) override {
    done(absl::UnavailableError("no peers"));
  }
  void FailPeer(const NodeId&) override {
    if (!stopping.HasBeenNotified()) stopping.Notify();
  }

  absl::Notification stopping;
};

}  // namespace kdn::actors

#endif  // KDN_TESTS_ACTORS_NO_TRANSPORT_H_
