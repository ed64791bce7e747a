#ifndef KDN_RPC_CLIENT_KV_COPY_H_
#define KDN_RPC_CLIENT_KV_COPY_H_

#include <cstddef>
#include <cstdint>

#include "kv/kv_view.h"

namespace kdn::rpc {

// The two ways a layer is packed densely on the wire, numbered as wire::Layout.
enum class DenseLayout : uint8_t { kTokenMajor = 0, kHeadMajor = 1 };

// The packed layout that copies to or from memory of these strides in the
// longest runs.
DenseLayout NearestLayout(const KvStrides& strides);
KvStrides StridesOf(DenseLayout layout, const KvShape& shape);

// Copies one packed layer (shape().layer_bytes() bytes) into a view, or out of
// one. REQUIRES: the view shows exactly one layer.
void UnpackLayer(const std::byte* packed, DenseLayout layout,
                 const MutableKvView& view);
void PackLayer(const KvView& view, DenseLayout layout, std::byte* packed);

// Bytes from the base of a one-layer view to the end of its last element.
uint64_t FootprintOf(const KvView& view);

}  // namespace kdn::rpc

#endif  // KDN_RPC_CLIENT_KV_COPY_H_
