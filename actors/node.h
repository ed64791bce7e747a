#ifndef KDN_ACTORS_NODE_H_
#define KDN_ACTORS_NODE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "delivery/control_network.h"
#include "delivery/node_service.h"
#include "delivery/peer_transport.h"
#include "kv/clock.h"
#include "kv/ids.h"
#include "kv/meters.h"
#include "placement/member.h"

namespace kdn::actors {

class ViewHolder;

// The most bytes of calibrations that a node keeps: an eighth of its memory,
// and at least 64 MiB, because a calibration of a large model takes some 45 MB.
constexpr uint64_t CalibrationBytesMax(uint64_t memory_bytes) {
  return std::max<uint64_t>(64u << 20, memory_bytes / 8);
}

struct NodeOptions {
  // Name of the cluster. Nodes of clusters with different names do not join.
  std::string cluster;
  NodeId self;
  // The member list at the start, with this node. Node::SetMembers replaces it.
  std::vector<placement::MemberSpec> members;
  // The address at which the control port is opened, as a number; empty: the
  // host of this node in `members`.
  std::string listen_address;
  int replicas = 2;
  // Memory of the storage actors, and for objects that pass through the node.
  uint64_t memory_bytes = 1u << 30;
  std::string data_dir;     // of the disk tier; empty: no disk tier
  uint64_t disk_bytes = 0;  // capacity of the disk tier
  int storage_actors = 2;   // partitions of the node's shards
  int workers = 2;          // threads that encode and decode
  // Calibrations of this node's configuration: the bytes of their files. The
  // node keeps them with those that it gets from the cluster.
  std::vector<std::vector<std::byte>> calibrations;
  absl::Duration heartbeat = absl::Milliseconds(200);
  // A peer that is silent for this long counts as dead.
  absl::Duration peer_timeout = absl::Seconds(2);
  // How long after a failure a peer is dialled again.
  absl::Duration reconnect = absl::Milliseconds(250);
  // The node counts its own metrics here and reports all of them. The node's
  // gateway, transport and bulk server count into the same meters.
  std::shared_ptr<Meters> meters = std::make_shared<Meters>();
};

// A running node: the actor system with all actors of the node, the disk tier
// and the worker threads. cli/ connects the gateway, the transport and the bulk
// server to the node. The destructor writes what waits for the disk and stops
// everything; peers then lose the connection. Thread-safe.
class Node {
 public:
  // Returns once the node serves the objects that it holds. Peers join as they
  // come up. The node publishes its view in `view`, where the transport and the
  // bulk server find the addresses of peers. INVALID_ARGUMENT for options that
  // are not valid; an error that names the address when the control port cannot
  // be opened; or an error of the disk tier. REQUIRES: `transport`, `network`,
  // `view` and `clock` outlive the node.
  static absl::StatusOr<std::unique_ptr<Node>> Start(
      NodeOptions options, delivery::PeerTransport* transport,
      delivery::ControlNetwork* network, ViewHolder* view, const Clock* clock);
  virtual ~Node() = default;

  virtual delivery::NodeService& service() = 0;
  virtual delivery::PeerService& peer_service() = 0;

  // Replaces the member list. Soon after, the node dials the new members and
  // forgets those that are off the list. INVALID_ARGUMENT, and nothing changes,
  // when the list lacks this node or no shard map can be built of the list. A
  // new address of this node itself takes effect at its next start.
  virtual absl::Status SetMembers(
      std::vector<placement::MemberSpec> members) = 0;
};

}  // namespace kdn::actors

#endif  // KDN_ACTORS_NODE_H_
