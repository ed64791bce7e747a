#include "kv/kv_view.h"

#include "absl/strings/str_cat.h"

namespace kdn {
namespace {

// Adds count * stride to `sum`. False when the stride is negative or the sum
// does not fit into 64 bits.
bool AddProduct(uint64_t count, int64_t stride, uint64_t* sum) {
  if (stride < 0) return false;
  uint64_t product;
  return !__builtin_mul_overflow(count, static_cast<uint64_t>(stride),
                                 &product) &&
         !__builtin_add_overflow(*sum, product, sum);
}

}  // namespace

KvShape ShapeOf(const ModelSpec& spec, int tokens) {
  return KvShape{spec.num_layers, spec.num_kv_heads, tokens, spec.head_dim,
                 spec.dtype};
}

KvSlice WholeOf(const ModelSpec& spec) {
  return KvSlice{0, spec.num_layers, 0, spec.num_kv_heads};
}

absl::Status Validate(const KvSlice& slice, const ModelSpec& spec) {
  if (slice.layer_begin < 0 || slice.layer_end > spec.num_layers ||
      slice.layer_begin >= slice.layer_end) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layers [", slice.layer_begin, ", ", slice.layer_end,
        "): expected a non-empty range inside [0, ", spec.num_layers, ")"));
  }
  if (slice.head_begin < 0 || slice.head_end > spec.num_kv_heads ||
      slice.head_begin >= slice.head_end) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV heads [", slice.head_begin, ", ", slice.head_end,
        "): expected a non-empty range inside [0, ", spec.num_kv_heads, ")"));
  }
  return absl::OkStatus();
}

KvStrides KvStrides::TokenMajor(const KvShape& shape) {
  const int64_t row = static_cast<int64_t>(shape.head_bytes());
  const int64_t part = row * shape.kv_heads * shape.tokens;
  return KvStrides{2 * part, part, row * shape.kv_heads, row};
}

KvStrides KvStrides::HeadMajor(const KvShape& shape) {
  const int64_t row = static_cast<int64_t>(shape.head_bytes());
  const int64_t part = row * shape.kv_heads * shape.tokens;
  return KvStrides{2 * part, part, row, row * shape.tokens};
}

absl::Status ValidateInside(const KvShape& shape, const KvStrides& strides,
                            uint64_t offset, uint64_t memory_bytes) {
  if (shape.layers < 1 || shape.kv_heads < 1 || shape.tokens < 1 ||
      shape.head_dim < 1) {
    return absl::InvalidArgumentError("KV shape has an empty dimension");
  }
  uint64_t end = offset;
  if (!AddProduct(static_cast<uint64_t>(shape.layers - 1), strides.layer,
                  &end) ||
      !AddProduct(1, strides.part, &end) ||
      !AddProduct(static_cast<uint64_t>(shape.tokens - 1), strides.token,
                  &end) ||
      !AddProduct(static_cast<uint64_t>(shape.kv_heads - 1), strides.head,
                  &end) ||
      !AddProduct(1, static_cast<int64_t>(shape.head_bytes()), &end)) {
    return absl::InvalidArgumentError(
        "KV strides are negative or overflow 64 bits");
  }
  if (end > memory_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV tensor at offset ", offset, " ends at byte ", end,
                     ", past its memory of ", memory_bytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace kdn
