#ifndef KDN_RPC_BULK_CLIENT_H_
#define KDN_RPC_BULK_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/peer_transport.h"
#include "kv/ids.h"
#include "kv/meters.h"
#include "kv/work_class.h"
#include "rpc/bulk/hello.h"

namespace kdn::rpc {

// Fetches objects from and pushes objects to other nodes' BulkServers, on one
// event loop thread of its own. A small pool of connections per peer, some for
// each class of work, one request at a time on each. Where all are in use the
// requesters of a class take turns (kdn::Admission). Bytes are read(2) straight
// into what FetchSink::OnHit gives and written straight from the object's
// memory.
//
// Invariants: every request ends by its deadline, exactly once; a broken or
// slow connection fails only the request on it; callbacks run on the loop
// thread, one at a time.
class BulkTransport : public delivery::PeerTransport {
 public:
  struct Options {
    NodeId self;
    Introduce introduce = nullptr;  // unset: by name only
    // To one peer. A class never uses the connections of another class, so that
    // pushes that wait for room at the peer do not hold up fetches.
    PerClass<int> connections_per_peer_max = {
        .read = 4, .write = 4, .background = 1};
    // Requests that wait for a connection, per peer and class; one more is
    // RESOURCE_EXHAUSTED.
    int waiting_max = 1024;
    absl::Duration connect_timeout = absl::Seconds(1);
    // Told "host:port" of a peer; any thread.
    std::function<absl::StatusOr<std::string>(const NodeId&)> resolve;
    // Counted into; a node's server counts into the same.
    std::shared_ptr<Meters> meters = std::make_shared<Meters>();
  };

  static std::unique_ptr<BulkTransport> Start(Options options);

  // Fails what is pending with UNAVAILABLE and joins. Calls after it fail at
  // once. Idempotent; the destructor does it too.
  virtual void Stop() = 0;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_CLIENT_H_
