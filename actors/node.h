#ifndef KDN_ACTORS_NODE_H_
#define KDN_ACTORS_NODE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "codec/calibration/calibration.h"
#include "delivery/node_service.h"
#include "delivery/peer_transport.h"
#include "kv/clock.h"
#include "kv/ids.h"
#include "kv/meters.h"
#include "placement/member.h"

namespace kdn::actors {

class ViewHolder;

struct NodeOptions {
  std::string cluster;  // the name: nodes of two clusters do not join
  NodeId self;
  // The member list at the start, self among them; see Node::SetMembers.
  std::vector<placement::MemberSpec> members;
  int replicas = 2;
  uint64_t memory_bytes = 1u << 30;  // arena of the memory tier
  std::string data_dir;              // empty: no disk tier
  uint64_t disk_bytes = 0;
  int storage_actors = 2;  // partitions of the node's shards
  int workers = 2;         // threads that encode and decode
  // Of several for one model, the last is what new objects are coded with.
  std::vector<std::shared_ptr<const codec::Calibration>> calibrations;
  absl::Duration heartbeat = absl::Milliseconds(200);
  // A peer silent for this long is dead.
  absl::Duration peer_timeout = absl::Seconds(2);
  absl::Duration reconnect = absl::Milliseconds(250);
  // The node counts into it, and reports what others counted there: its gateway
  // and its transports.
  std::shared_ptr<Meters> meters = std::make_shared<Meters>();
};

// A running node: the actor system, its storage, delivery and placement actors
// and its worker threads. The gateway and the bulk server are wired to it by
// cli/. Stops everything when destroyed; peers then see it go. Thread-safe.
class Node {
 public:
  // `transport` and `addresses` must outlive the node. The node keeps the
  // addresses of its members' bulk servers in `addresses`, where `transport`
  // looks for them. Returns once the node serves its own store; peers join as
  // they come up. UNAVAILABLE naming the address when the control port is
  // taken; the disk tier's errors as they are.
  static absl::StatusOr<std::unique_ptr<Node>> Start(
      NodeOptions options, delivery::PeerTransport* transport, ViewHolder* view,
      const Clock* clock);
  virtual ~Node() = default;

  virtual delivery::NodeService& service() = 0;
  virtual delivery::PeerService& peer_service() = 0;

  // Replaces the member list; soon after, the node dials who is new and forgets
  // who is gone. INVALID_ARGUMENT, and nothing changes, for a list that does
  // not have this node or of which no map can be built. New addresses of this
  // node itself count from its next start.
  virtual absl::Status SetMembers(
      std::vector<placement::MemberSpec> members) = 0;
};

}  // namespace kdn::actors

#endif  // KDN_ACTORS_NODE_H_
