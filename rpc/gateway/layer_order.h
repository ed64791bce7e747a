#ifndef KDN_RPC_GATEWAY_LAYER_ORDER_H_
#define KDN_RPC_GATEWAY_LAYER_ORDER_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "kv/check.h"

namespace kdn::rpc {

// Workers complete the layers of a chunk in any order; this class gives them
// out in the order in which an engine computes, in runs of `run` layers; the
// last run of a chunk may have fewer. Representation, per chunk: the layers
// that are complete, and the number of layers that were given out. Invariant:
// the layers of one chunk are given out once each and in order. Pure.
class LayerOrder {
 public:
  struct Ready {
    int chunk;
    int layer;  // the first one
    int count = 1;
    bool operator==(const Ready&) const = default;
  };

  LayerOrder(int chunks, int layers, int run = 1)
      : layers_(layers),
        run_(run),
        complete_(static_cast<size_t>(chunks) * layers),
        given_(chunks) {}

  // Layer `layer` of `chunk` is complete: appends the runs that may go out
  // now to `out`. A layer may be completed again, by a second replica; that has
  // no effect. REQUIRES: chunk and layer are in range.
  void Complete(int chunk, int layer, std::vector<Ready>& out);

  // Layers of `chunk` given out so far.
  int given(int chunk) const { return given_[chunk]; }

 private:
  int layers_;
  int run_;
  std::vector<bool> complete_;
  std::vector<int> given_;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_LAYER_ORDER_H_
