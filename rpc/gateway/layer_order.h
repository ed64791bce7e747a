#ifndef KDN_RPC_GATEWAY_LAYER_ORDER_H_
#define KDN_RPC_GATEWAY_LAYER_ORDER_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "kv/check.h"

namespace kdn::rpc {

// Puts the layers that several workers complete in any order back into the
// order an engine computes in. Representation: per chunk, which layers are
// complete and how many of them, from the first on, were given out. Invariant:
// the layers of one chunk are given out once each and in order. Pure.
class LayerOrder {
 public:
  struct Ready {
    int chunk;
    int layer;
    bool operator==(const Ready&) const = default;
  };

  LayerOrder(int chunks, int layers)
      : layers_(layers),
        complete_(static_cast<size_t>(chunks) * layers),
        given_(chunks) {}

  // Layer `layer` of `chunk` is complete: appends what may go out now.
  // Told again (a second replica stood in for the first), it changes nothing.
  // REQUIRES: inside the bounds.
  void Complete(int chunk, int layer, std::vector<Ready>& out);

  // Layers of `chunk` given out so far.
  int given(int chunk) const { return given_[chunk]; }

 private:
  int layers_;
  std::vector<bool> complete_;
  std::vector<int> given_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_LAYER_ORDER_H_
