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
ShardId ShardOf(const PlacementKey& key);

// Which nodes own which shard: every shard's nodes in weighted rendezvous order
// (Thaler and Ravishankar, 1998; weights as -w / ln u), the first owner under a
// cap of ceil((1 + slack) * w / W * kShards) shards per node so that no node
// gets noticeably more than its share.
//
// A pure function of the members and options, the same on every machine: nodes
// that see the same members agree without talking, nobody ships a map, a lookup
// is one array read, the next owner is the natural replica and successor.
// Immutable.
class ShardMap {
 public:
  struct Options {
    double slack = 0.01;
    // Owners kept per shard, first owner included. A longer order begins like a
    // shorter one.
    int order_length = 8;
  };
  static constexpr size_t kMembersMax = 1024;

  // INVALID_ARGUMENT: no members, too many, an id empty or twice, a weight that
  // is not finite and positive, weights whose sum is not finite, options out of
  // range.
  static absl::Status Validate(std::vector<MapMember> members,
                               const Options& options);
  // Errors as Validate. Takes tens of milliseconds for a hundred members.
  static absl::StatusOr<ShardMap> Build(std::vector<MapMember> members,
                                        const Options& options);

  // By id.
  const std::vector<MapMember>& members() const { return members_; }

  bool Has(const NodeId& node) const { return Find(node) != members_.end(); }

  // Indices into members(), first owner first; min(order_length, members) of
  // them, all different. REQUIRES: shard < kShards.
  absl::Span<const uint16_t> OrderOf(ShardId shard) const;
  const NodeId& FirstOwner(ShardId shard) const;
  // The first `count` owners, fewer if there are fewer.
  std::vector<NodeId> Owners(ShardId shard, int count) const;

  struct Counts {
    uint64_t primary = 0;  // shards whose first owner the node is
    uint64_t held = 0;     // shards whose first `replicas` owners include it
  };
  // Zero for a node that is not a member. Walks every shard.
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
