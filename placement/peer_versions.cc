#include "placement/introduction.h"

namespace kdn::placement {

// KDN_PREVIOUS_PEER_VERSION builds the version before: for the test of rolling
// upgrades.
PeerVersions PeerVersionsOfThisBuild() {
#ifdef KDN_PREVIOUS_PEER_VERSION
  return {.oldest = 3, .newest = 3};
#else
  return {.oldest = 3, .newest = 4};
#endif
}

}  // namespace kdn::placement
