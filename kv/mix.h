#ifndef KDN_KV_MIX_H_
#define KDN_KV_MIX_H_

#include <cstdint>

namespace kdn {

// SplitMix64's finaliser (Steele et al., 2014): every input bit affects every
// output bit.
constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
// What SplitMix64 adds to its state before it mixes. Mix keeps 0 as it is, so
// small numbers are mixed behind this sum.
inline constexpr uint64_t kMixStep = 0x9e3779b97f4a7c15ull;

}  // namespace kdn

#endif  // KDN_KV_MIX_H_
