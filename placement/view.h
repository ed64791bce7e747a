#ifndef KDN_PLACEMENT_VIEW_H_
#define KDN_PLACEMENT_VIEW_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "placement/member.h"
#include "placement/shard_map.h"

namespace kdn::placement {

// What one node believes about the cluster at one moment: the members and their
// states, and who owns which shard. A value: whoever holds a view decides on
// consistent data, and takes a newer view for the next decision.
//
// The shard map may be older than the member states, because building a map
// takes time. Owners are then those of the map's members that answer.
class View {
 public:
  struct Parts {
    NodeId self;
    int replicas = 1;  // copies wanted of a chunk
    Epoch epoch;
    std::vector<Member> members;          // by id; self among them
    std::shared_ptr<const ShardMap> map;  // of the members that own shards
    // Of all members of the list, whether they answer or not.
    std::shared_ptr<const ShardMap> map_of_all;
    bool operator==(const Parts&) const = default;
  };
  // REQUIRES: what CheckInvariants checks.
  explicit View(Parts parts);

  const Parts& parts() const { return parts_; }
  const NodeId& self() const { return parts_.self; }
  Epoch epoch() const { return parts_.epoch; }
  const std::vector<Member>& members() const { return parts_.members; }
  // Null when the node is not on the member list.
  const Member* Find(const NodeId& node) const;
  // "host:port" of the member's bulk server. NOT_FOUND when the node is not on
  // the member list.
  absl::StatusOr<std::string> BulkAddressOf(const NodeId& node) const;
  // The node is on the list and answers. Always true for this node.
  bool IsLive(const NodeId& node) const;
  const ShardMap& map() const { return *parts_.map; }

  // Copies wanted of a chunk: the configured replicas, or as many as there are
  // members.
  int copies() const;
  // How far down the owner order readers and lookups walk: past the copies,
  // because a node with an older view may have stored further down.
  int walk_depth() const { return parts_.replicas + 2; }

  // Live owners of the chunk's shard, first owner first, at most `count`, at
  // least one. This node stands in where no owner is live.
  std::vector<NodeId> OwnersOf(const ChunkRef& ref, int count) const;
  // An owner of the chunk, down to walk_depth(), that is away. The owner may
  // hold a copy and come back with it.
  std::optional<NodeId> AwayOwnerOf(const ChunkRef& ref) const;

  void CheckInvariants() const;

 private:
  Parts parts_;
  std::vector<bool> live_in_map_;  // parallel to map().members()
};

// Which of a node's `partitions` keeps a shard.
inline size_t PartitionOf(ShardId shard, size_t partitions) {
  return shard.value() % partitions;
}

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_VIEW_H_
