#ifndef KDN_PLACEMENT_RENDEZVOUS_H_
#define KDN_PLACEMENT_RENDEZVOUS_H_

#include <cstdint>
#include <string_view>

#include "kv/mix.h"

namespace kdn::placement {

// The arithmetic of weighted rendezvous hashing. It uses only integers and
// operations that IEEE 754 rounds exactly, so that two builds, compilers or
// libraries never disagree about an owner.

// A 64-bit hash of a node's name (FNV-1a, finished with Mix).
uint64_t HashOf(std::string_view name);

// -ln(u) for u = bits / 2^64. Only the leading 53 bits of `bits` count, and 0
// counts as 1. Positive and finite for every input; the relative error on these
// bits is below 1e-14. Computed with +, -, * and / of doubles in a fixed order,
// because std::log may differ between C libraries in the last bit.
double NegativeLog(uint64_t bits);

// What a shard contributes to RankBits, the same for all nodes.
constexpr uint64_t SaltOf(uint32_t shard) { return Mix(shard + kMixStep); }

// The hash that a node has for the shard of `salt`. Never 0.
constexpr uint64_t RankBits(uint64_t node_hash, uint64_t salt) {
  const uint64_t bits = Mix(node_hash ^ salt);
  return bits == 0 ? 1 : bits;
}

// The rank of a node for a shard: smaller ranks own the shard earlier. Ranks
// are exponentially distributed with rate `weight`, so a node has the smallest
// rank with probability weight / sum of the weights. REQUIRES: weight > 0.
inline double RankOf(uint64_t node_hash, uint32_t shard, double weight) {
  return NegativeLog(RankBits(node_hash, SaltOf(shard))) / weight;
}

}  // namespace kdn::placement

#endif  // KDN_PLACEMENT_RENDEZVOUS_H_
