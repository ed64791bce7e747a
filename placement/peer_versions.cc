#include "placement/introduction.h"

namespace kdn::placement {

// With KDN_PREVIOUS_PEER_VERSION, the build speaks only the previous version.
// The test of rolling upgrades uses it.
PeerVersions PeerVersionsOfThisBuild() {
#ifdef KDN_PREVIOUS_PEER_VERSION
  return {.oldest = 5, .newest = 6};
#else
  return {.oldest = 6, .newest = 7};
#endif
}

}  // namespace kdn::placement
