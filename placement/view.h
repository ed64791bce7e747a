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

// What one node believes about the cluster at one moment: the members, their
// states, and the owners of every shard. A value: code that holds a view makes
// one decision on consistent data, and takes a newer view for the next one.
//
// The shard map may be older than the member states, because building a map
// takes time. The view then passes over owners that do not answer.
class View {
 public:
  struct Parts {
    NodeId self;
    int replicas = 1;  // copies that each chunk should have
    Epoch epoch;
    std::vector<Member> members;  // sorted by id, with this node
    // Has the members that own shards.
    std::shared_ptr<const ShardMap> map;
    // Has all members of the list, whether they answer or not.
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

  // How many copies a chunk should have: the configured replicas, but no more
  // than there are members.
  int copies() const;
  // The number of owners that readers and lookups ask. It is more than there
  // are copies, because a node with an older view may have stored a chunk
  // further down the order.
  int walk_depth() const { return parts_.replicas + 2; }

  // The live owners of the chunk's shard, first owner first: at least one and
  // at most `count`. When no owner is live, this node is the owner.
  std::vector<NodeId> OwnersOf(const ChunkRef& ref, int count) const;
  // One of the chunk's first walk_depth() owners by map_of_all that is away.
  // That node may hold a copy and come back with it. Nullopt: none of these
  // owners is away.
  std::optional<NodeId> AwayOwnerOf(const ChunkRef& ref) const;

  void CheckInvariants() const;

 private:
  Parts parts_;
  std::vector<bool> live_in_map_;  // parallel to map().members()
};

// The index of the partition that keeps a shard, in a node with so many
// partitions.
inline size_t PartitionOf(ShardId shard, size_t partitions) {
  return shard.value() % partitions;
}

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_VIEW_H_
