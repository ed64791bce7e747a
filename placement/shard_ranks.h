#ifndef KDN_PLACEMENT_SHARD_RANKS_H_
#define KDN_PLACEMENT_SHARD_RANKS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kv/ids.h"

namespace kdn::placement {

// A node as the shard map knows it.
struct MapMember {
  NodeId id;
  double weight = 1.0;
  bool operator==(const MapMember&) const = default;
};

// Ranks the members of a map for one shard at a time: the member with the
// smallest RankOf first, and of equal ranks the smallest index first.
//
// A rank is -ln(hash) / weight, and the logarithm takes most of the time.
// First() needs only the smallest ranks, so it takes the logarithm of a hash
// only when the hash is so large that the rank can be below rank_limit_. This
// test is one integer comparison for each member, with a bound that depends on
// the weight. When too few ranks of a shard are below rank_limit_, First() uses
// All().
//
// The functions write scratch memory: not thread-safe, not even for reading.
class ShardRanks {
 public:
  // First() returns `first` members. REQUIRES: 1 <= first <= number of members
  // <= 65,536; every weight is finite and positive.
  ShardRanks(const std::vector<MapMember>& members, size_t first);

  // Indices of the `first` members with the smallest ranks, in rank order: the
  // beginning of All(). Valid until the next call.
  absl::Span<const uint16_t> First(ShardId shard);
  // Indices of all members in rank order. Valid until the next call.
  absl::Span<const uint16_t> All(ShardId shard);

 private:
  struct Node {
    uint64_t name_hash = 0;
    double weight = 0.0;
    // Smaller hashes have ranks above rank_limit_. 0: no hash is too small.
    uint64_t hash_min = 0;
  };
  struct Candidate {
    uint64_t hash = 0;
    uint16_t node = 0;
  };
  using Ranked = std::pair<double, uint16_t>;  // rank, index

  // Fills candidates_ with the members whose hash is large enough. Returns how
  // many they are.
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
