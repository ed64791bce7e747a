#ifndef KDN_PLACEMENT_SHARD_RANKS_H_
#define KDN_PLACEMENT_SHARD_RANKS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kv/ids.h"

namespace kdn::placement {

// A node as far as the shard map knows nodes.
struct MapMember {
  NodeId id;
  double weight = 1.0;
  bool operator==(const MapMember&) const = default;
};

// Ranks the members of a map for one shard after the other: smaller RankOf
// first, of equal ranks the smaller index first.
//
// A rank is -ln(hash) / weight, and the logarithm is what costs time. First()
// needs the smallest ranks only: it takes the logarithm of a hash only when the
// hash is so great that the rank can be below rank_limit_. That is one integer
// comparison per member, with a limit per weight. A shard with too few ranks
// below rank_limit_ is ranked by All().
//
// Holds scratch memory: not thread-safe, not even for reading.
class ShardRanks {
 public:
  // `first`: how many members First() returns. REQUIRES: 1 <= first <= number
  // of members <= 65,536; every weight is finite and positive.
  ShardRanks(const std::vector<MapMember>& members, size_t first);

  // Indices of the `first` members of smallest rank, in rank order: the
  // beginning of All(). Valid until the next call.
  absl::Span<const uint16_t> First(ShardId shard);
  // Indices of all members in rank order. Valid until the next call.
  absl::Span<const uint16_t> All(ShardId shard);

 private:
  struct Node {
    uint64_t name_hash = 0;
    double weight = 0.0;
    // A smaller hash has a rank above rank_limit_. 0: no hash is too small.
    uint64_t hash_min = 0;
  };
  struct Candidate {
    uint64_t hash = 0;
    uint16_t node = 0;
  };
  using Ranked = std::pair<double, uint16_t>;  // rank, index

  // Fills candidates_; returns how many they are.
  size_t Select(uint64_t salt);
  absl::Span<const uint16_t> Indices(size_t count);

  std::vector<Node> nodes_;
  size_t first_ = 0;
  double rank_limit_ = 0.0;
  std::vector<Candidate> candidates_;
  std::vector<Ranked> ranked_;
  std::vector<uint16_t> order_;
};

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_SHARD_RANKS_H_
