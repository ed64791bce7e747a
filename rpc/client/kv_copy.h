#ifndef KDN_RPC_CLIENT_KV_COPY_H_
#define KDN_RPC_CLIENT_KV_COPY_H_

#include <cstddef>
#include <cstdint>

#include "kv/kv_view.h"

namespace kdn::rpc {

// The two orders of a densely packed layer, with the numbers of wire::Layout.
enum class DenseLayout : uint8_t { kTokenMajor = 0, kHeadMajor = 1 };

// The layout whose contiguous runs are longest when a layer is copied between
// it and memory of these strides.
DenseLayout NearestLayout(const KvStrides& strides);
KvStrides StridesOf(DenseLayout layout, const KvShape& shape);

// Copy one layer from packed memory of shape().layer_bytes() bytes into a view,
// and from a view into packed memory. REQUIRES: a view of exactly one layer.
void UnpackLayer(const std::byte* packed, DenseLayout layout,
                 const MutableKvView& view);
void PackLayer(const KvView& view, DenseLayout layout, std::byte* packed);

// Bytes from the base of a one-layer view to the end of its last element.
uint64_t FootprintOf(const KvView& view);

}  // namespace kdn::rpc

#endif  // KDN_RPC_CLIENT_KV_COPY_H_
