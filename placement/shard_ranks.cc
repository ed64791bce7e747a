#include "placement/shard_ranks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kv/check.h"
#include "placement/rendezvous.h"

namespace kdn::placement {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

// With such a weight, ranks overflow or lose precision, and the limits of
// RankLimit and SmallestHash are not bounds any more.
bool IsExtreme(const MapMember& member) {
  return member.weight < 1e-280 || member.weight > 1e280;
}

// The number of members with a rank below `limit`, on average over all shards.
double MembersBelow(double limit, const std::vector<MapMember>& members) {
  double sum = 0.0;
  for (const MapMember& member : members) {
    sum += -std::expm1(-limit * member.weight);
  }
  return sum;
}

// A limit such that in nearly every shard more than `first` ranks are below the
// limit. Only the speed depends on the limit.
double RankLimit(const std::vector<MapMember>& members, size_t first) {
  // The number of ranks below a limit is nearly Poisson distributed. With 3
  // standard deviations to spare, 1 shard of 100 has too few (first = 8).
  const double wanted =
      static_cast<double>(first) + 3.0 * std::sqrt(static_cast<double>(first));
  if (wanted > 0.75 * static_cast<double>(members.size()) ||
      std::any_of(members.begin(), members.end(), IsExtreme)) {
    return kNoLimit;
  }
  double low = 1e-300;
  double high = 1e300;
  while (high / low > 1.01) {
    const double middle = std::sqrt(low) * std::sqrt(high);
    (MembersBelow(middle, members) < wanted ? low : high) = middle;
  }
  return high;
}

// The smallest hash whose rank may be below `limit`. For any smaller hash,
// -ln(hash / 2^64) is at least limit * weight + 1e-9, and the error of
// NegativeLog is at most 1e-14 of its value, which is at most 44.4.
uint64_t SmallestHash(double limit, double weight) {
  if (limit == kNoLimit) return 0;
  const double least = std::exp(-limit * weight) * (1.0 - 1e-9);
  return static_cast<uint64_t>(least * 0x1p64);
}

}  // namespace

ShardRanks::ShardRanks(const std::vector<MapMember>& members, size_t first)
    : first_(first), rank_limit_(RankLimit(members, first)) {
  KDN_CHECK(first >= 1 && first <= members.size(),
            "an order has between one member and all members");
  KDN_CHECK(members.size() <= 65536, "the index of a member has 16 bits");
  for (const MapMember& member : members) {
    nodes_.push_back(Node{HashOf(member.id.name()), member.weight,
                          SmallestHash(rank_limit_, member.weight)});
  }
  candidates_.resize(members.size());
}

size_t ShardRanks::Select(uint64_t salt) {
  size_t count = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const uint64_t hash = RankBits(nodes_[i].name_hash, salt);
    // Writes every candidate and keeps some, because the CPU could not predict
    // a branch here.
    candidates_[count] = Candidate{hash, static_cast<uint16_t>(i)};
    count += hash >= nodes_[i].hash_min ? 1 : 0;
  }
  return count;
}

absl::Span<const uint16_t> ShardRanks::First(ShardId shard) {
  const size_t count = Select(SaltOf(shard.value()));
  if (count < first_) return All(shard).subspan(0, first_);
  ranked_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const auto [hash, node] = candidates_[i];
    ranked_[i] = {NegativeLog(hash) / nodes_[node].weight, node};
  }
  std::sort(ranked_.begin(), ranked_.end());
  // If the last rank is above the limit, a member that is no candidate may have
  // a smaller rank.
  if (ranked_[first_ - 1].first > rank_limit_) {
    return All(shard).subspan(0, first_);
  }
  return Indices(first_);
}

absl::Span<const uint16_t> ShardRanks::All(ShardId shard) {
  const uint64_t salt = SaltOf(shard.value());
  ranked_.resize(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const uint64_t hash = RankBits(nodes_[i].name_hash, salt);
    ranked_[i] = {NegativeLog(hash) / nodes_[i].weight,
                  static_cast<uint16_t>(i)};
  }
  std::sort(ranked_.begin(), ranked_.end());
  return Indices(ranked_.size());
}

absl::Span<const uint16_t> ShardRanks::Indices(size_t count) {
  order_.resize(count);
  for (size_t i = 0; i < count; ++i) order_[i] = ranked_[i].second;
  return order_;
}

}  // namespace kdn::placement
