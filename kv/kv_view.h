#ifndef KDN_KV_KV_VIEW_H_
#define KDN_KV_KV_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kv/dtype.h"
#include "kv/model_spec.h"

namespace kdn {

enum class KvPart : uint8_t { kK = 0, kV = 1 };

// The shape of the KV of a run of tokens: layers x {K, V} x kv_heads x tokens x
// head_dim.
struct KvShape {
  int layers = 0;
  int kv_heads = 0;
  int tokens = 0;
  int head_dim = 0;
  Dtype dtype = Dtype::kBf16;
  // The head_dim of V in models where it differs from that of K; 0 in all other
  // models. Only the object format supports such models; views and codecs do
  // not.
  int v_head_dim = 0;

  int dim(KvPart part) const {
    return part == KvPart::kV && v_head_dim != 0 ? v_head_dim : head_dim;
  }
  // Bytes of one row of K; also of V unless v_head_dim is set.
  size_t head_bytes() const {
    return static_cast<size_t>(head_dim) * SizeOf(dtype);
  }
  // Bytes of K and V of one layer.
  size_t layer_bytes() const {
    return (static_cast<size_t>(dim(KvPart::kK)) + dim(KvPart::kV)) *
           SizeOf(dtype) * kv_heads * tokens;
  }
  size_t bytes() const { return layer_bytes() * layers; }
  bool operator==(const KvShape&) const = default;
};

KvShape ShapeOf(const ModelSpec& spec, int tokens);

// Half-open ranges of layers and KV heads. One rank of a tensor- or
// pipeline-parallel engine holds such a slice of a model's KV.
struct KvSlice {
  int layer_begin = 0;
  int layer_end = 0;
  int head_begin = 0;
  int head_end = 0;

  int layers() const { return layer_end - layer_begin; }
  int heads() const { return head_end - head_begin; }
  bool operator==(const KvSlice&) const = default;
};

KvSlice WholeOf(const ModelSpec& spec);
// INVALID_ARGUMENT unless both ranges are non-empty and inside the model.
absl::Status Validate(const KvSlice& slice, const ModelSpec& spec);

// The strides of a KV tensor, in bytes. The head_dim elements of a row are
// contiguous. Strides can describe [layer][K|V][token][head][dim] and
// [layer][K|V][head][token][dim], with any padding.
struct KvStrides {
  int64_t layer = 0;
  int64_t part = 0;
  int64_t token = 0;
  int64_t head = 0;

  // [layer][K|V][token][head][dim] without padding, as in vLLM.
  static KvStrides TokenMajor(const KvShape& shape);
  // [layer][K|V][head][token][dim] without padding, as in Hugging Face's
  // DynamicCache.
  static KvStrides HeadMajor(const KvShape& shape);
  bool operator==(const KvStrides&) const = default;
};

// A view of KV memory that it does not own. `T` is std::byte or const
// std::byte. Indices count from the start of the view: layer 0 is the first
// layer that the view shows.
template <typename T>
class BasicKvView {
 public:
  BasicKvView() = default;
  BasicKvView(T* base, const KvShape& shape, const KvStrides& strides)
      : base_(base), shape_(shape), strides_(strides) {}

  T* At(int layer, KvPart part, int head, int token) const {
    return base_ + layer * strides_.layer +
           static_cast<int64_t>(part) * strides_.part + token * strides_.token +
           head * strides_.head;
  }
  // A view of one layer, in the same memory.
  BasicKvView Layer(int layer) const { return Layers(layer, 1); }
  // A view of `count` layers from `layer` on, in the same memory.
  BasicKvView Layers(int layer, int count) const {
    KvShape shape = shape_;
    shape.layers = count;
    return BasicKvView(base_ + layer * strides_.layer, shape, strides_);
  }
  // A view of `count` tokens from `token` on, in the same memory.
  BasicKvView Tokens(int token, int count) const {
    KvShape shape = shape_;
    shape.tokens = count;
    return BasicKvView(base_ + token * strides_.token, shape, strides_);
  }
  // NOLINTNEXTLINE(google-explicit-constructor)
  operator BasicKvView<const T>() const {
    return BasicKvView<const T>(base_, shape_, strides_);
  }

  T* base() const { return base_; }
  const KvShape& shape() const { return shape_; }
  const KvStrides& strides() const { return strides_; }

 private:
  T* base_ = nullptr;
  KvShape shape_;
  KvStrides strides_;
};
using KvView = BasicKvView<const std::byte>;
using MutableKvView = BasicKvView<std::byte>;

// INVALID_ARGUMENT unless no dimension is empty, no stride is negative, and
// every element of a tensor that begins at byte `offset` lies inside [0,
// memory_bytes). Safe against overflow, because the numbers come from peers.
absl::Status ValidateInside(const KvShape& shape, const KvStrides& strides,
                            uint64_t offset, uint64_t memory_bytes);

}  // namespace kdn

#endif  // KDN_KV_KV_VIEW_H_
