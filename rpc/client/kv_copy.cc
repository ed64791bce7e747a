#include "rpc/client/kv_copy.h"

#include <cstring>

#include "kv/check.h"

namespace kdn::rpc {
namespace {

// A two-dimensional copy: `outer` runs of `inner` pieces of `piece` bytes.
struct Plane {
  size_t piece;
  int inner, outer;
  int64_t inner_stride, outer_stride;  // in the view
};

// In packed memory, `inner` is the fastest index. Pieces that are contiguous in
// the view are merged.
Plane PlaneOf(const KvShape& shape, const KvStrides& strides,
              DenseLayout layout) {
  Plane plane{shape.head_bytes(), shape.kv_heads, shape.tokens, strides.head,
              strides.token};
  if (layout == DenseLayout::kHeadMajor) {
    std::swap(plane.inner, plane.outer);
    std::swap(plane.inner_stride, plane.outer_stride);
  }
  if (plane.inner_stride != static_cast<int64_t>(plane.piece)) return plane;
  plane.piece *= static_cast<size_t>(plane.inner);
  plane.inner = 1;
  if (plane.outer_stride != static_cast<int64_t>(plane.piece)) return plane;
  plane.piece *= static_cast<size_t>(plane.outer);
  plane.outer = 1;
  return plane;
}

// Calls copy(pointer into the view, offset in the packed layer, bytes) for each
// contiguous run of a layer.
template <typename T, typename Copy>
void ForEachRun(const BasicKvView<T>& view, DenseLayout layout, Copy copy) {
  const KvShape& shape = view.shape();
  KDN_CHECK(shape.layers == 1, "layers are packed one at a time");
  const Plane plane = PlaneOf(shape, view.strides(), layout);
  size_t offset = 0;
  for (KvPart part : {KvPart::kK, KvPart::kV}) {
    T* const base = view.At(0, part, 0, 0);
    for (int o = 0; o < plane.outer; ++o) {
      for (int i = 0; i < plane.inner; ++i) {
        copy(base + o * plane.outer_stride + i * plane.inner_stride, offset,
             plane.piece);
        offset += plane.piece;
      }
    }
  }
  KDN_CHECK(offset == shape.layer_bytes(), "a packed layer has another size");
}

}  // namespace

DenseLayout NearestLayout(const KvStrides& strides) {
  return strides.head > strides.token ? DenseLayout::kHeadMajor
                                      : DenseLayout::kTokenMajor;
}

KvStrides StridesOf(DenseLayout layout, const KvShape& shape) {
  return layout == DenseLayout::kHeadMajor ? KvStrides::HeadMajor(shape)
                                           : KvStrides::TokenMajor(shape);
}

void UnpackLayer(const std::byte* packed, DenseLayout layout,
                 const MutableKvView& view) {
  ForEachRun(view, layout, [packed](std::byte* to, size_t offset, size_t n) {
    std::memcpy(to, packed + offset, n);
  });
}

void PackLayer(const KvView& view, DenseLayout layout, std::byte* packed) {
  ForEachRun(view, layout,
             [packed](const std::byte* from, size_t offset, size_t n) {
               std::memcpy(packed + offset, from, n);
             });
}

uint64_t FootprintOf(const KvView& view) {
  const KvShape& shape = view.shape();
  const KvStrides& strides = view.strides();
  KDN_CHECK(shape.layers == 1 && shape.tokens > 0 && shape.kv_heads > 0,
            "a footprint is computed for one layer that is not empty");
  return static_cast<uint64_t>(strides.part +
                               (shape.tokens - 1) * strides.token +
                               (shape.kv_heads - 1) * strides.head) +
         shape.head_bytes();
}

}  // namespace kdn::rpc
