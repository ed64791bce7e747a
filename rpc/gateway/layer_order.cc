#include "rpc/gateway/layer_order.h"

#include <algorithm>

namespace kdn::rpc {

void LayerOrder::Complete(int chunk, int layer, std::vector<Ready>& out) {
  KDN_CHECK(chunk >= 0 && chunk < static_cast<int>(given_.size()),
            "a layer of a chunk that was not asked for");
  KDN_CHECK(layer >= 0 && layer < layers_, "a layer outside the slice");
  const size_t base = static_cast<size_t>(chunk) * layers_;
  complete_[base + layer] = true;
  int& next = given_[chunk];
  while (next < layers_) {
    const int end = std::min(next + run_, layers_);
    for (int at = next; at < end; ++at) {
      if (!complete_[base + at]) return;
    }
    out.push_back(Ready{chunk, next, end - next});
    next = end;
  }
}

}  // namespace kdn::rpc
