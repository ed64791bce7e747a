#ifndef KDN_PLACEMENT_SHARD_MAP_H_
#define KDN_PLACEMENT_SHARD_MAP_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/chunk_key.h"
#include "kv/ids.h"
#include "placement/shard_ranks.h"

namespace kdn::placement {

// The shard of a chunk, the same in every cluster.
ShardId ShardOf(const ChunkKey& key);

// Which nodes own which shard. The owners of a shard are the nodes in weighted
// rendezvous order (Thaler and Ravishankar, 1998; weights as -w / ln u). A node
// is the first owner of at most ceil((1 + slack) * w / W * kShards) shards, so
// that no node gets noticeably more than its share w / W.
//
// A map is a pure function of the members and options, the same on every
// machine. So nodes that see the same members agree without a message, and no
// node sends a map. A lookup reads one array. When a node is lost, the next
// owner in the order takes its place; that owner already has a replica.
// Immutable.
class ShardMap {
 public:
  struct Options {
    double slack = 0.01;
    // How many owners the map keeps for each shard, the first owner included. A
    // longer order begins like a shorter one.
    int order_length = 8;
  };
  static constexpr size_t kMembersMax = 1024;

  // INVALID_ARGUMENT for no members or more than kMembersMax, for an id that is
  // empty or listed twice, for a weight that is not finite and positive, when
  // the sum of the weights is not finite, and for options out of range.
  static absl::Status Validate(std::vector<MapMember> members,
                               const Options& options);
  // Errors as Validate. Takes tens of milliseconds for a hundred members.
  static absl::StatusOr<ShardMap> Build(std::vector<MapMember> members,
                                        const Options& options);

  // Sorted by id.
  const std::vector<MapMember>& members() const { return members_; }

  bool Has(const NodeId& node) const { return Find(node) != members_.end(); }

  // The owners as indices into members(), first owner first. The order has
  // min(order_length, number of members) different indices. REQUIRES: shard <
  // kShards.
  absl::Span<const uint16_t> OrderOf(ShardId shard) const;
  const NodeId& FirstOwner(ShardId shard) const;
  // The first `count` owners, or all owners if the order is shorter.
  std::vector<NodeId> Owners(ShardId shard, int count) const;

  struct Counts {
    uint64_t primary = 0;  // shards with the node as first owner
    // Shards with the node among the first `replicas` owners.
    uint64_t held = 0;
  };
  // The counts of one node; zero when it is not a member. Reads every shard.
  Counts CountsOf(const NodeId& node, int replicas) const;

 private:
  ShardMap(std::vector<MapMember> members, const Options& options);
  void Fill();
  std::vector<MapMember>::const_iterator Find(const NodeId& node) const;

  std::vector<MapMember> members_;
  Options options_;
  int order_length_ = 0;
  std::vector<uint16_t> order_;  // kShards x order_length_
};

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_SHARD_MAP_H_
