#include "bench/kv_tensor.h"

#include <algorithm>

#include "kv/check.h"
#include "kv/dtype.h"

namespace kdn::bench {
namespace {

// Visits the rows of a shape in the tensor's own order.
template <typename Visit>
void ForEachRow(const KvShape& shape, Visit visit) {
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (KvPart part : {KvPart::kK, KvPart::kV}) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        for (int token = 0; token < shape.tokens; ++token) {
          visit(layer, part, head, token);
        }
      }
    }
  }
}

size_t RowBegin(const KvShape& shape, int layer, KvPart part, int head,
                int token) {
  const size_t heads =
      (2 * static_cast<size_t>(layer) + static_cast<size_t>(part)) *
          shape.kv_heads +
      head;
  return (heads * shape.tokens + token) * shape.head_dim;
}

}  // namespace

KvTensor::KvTensor(const KvShape& shape)
    : shape_(shape), values_(shape.bytes() / SizeOf(shape.dtype)) {}

KvTensor KvTensor::Of(const KvView& view) {
  KvTensor tensor(view.shape());
  ForEachRow(view.shape(), [&](int layer, KvPart part, int head, int token) {
    const absl::Span<float> row = tensor.Row(layer, part, head, token);
    LoadFloats(view.shape().dtype, view.At(layer, part, head, token),
               row.size(), row.data());
  });
  return tensor;
}

void KvTensor::Store(const MutableKvView& view) const {
  KDN_CHECK(view.shape() == shape_, "the view has the tensor's shape");
  ForEachRow(shape_, [&](int layer, KvPart part, int head, int token) {
    const absl::Span<const float> row = Row(layer, part, head, token);
    StoreFloats(shape_.dtype, row.data(), row.size(),
                view.At(layer, part, head, token));
  });
}

absl::Span<float> KvTensor::Row(int layer, KvPart part, int head, int token) {
  return {values_.data() + RowBegin(shape_, layer, part, head, token),
          static_cast<size_t>(shape_.head_dim)};
}

absl::Span<const float> KvTensor::Row(int layer, KvPart part, int head,
                                      int token) const {
  return {values_.data() + RowBegin(shape_, layer, part, head, token),
          static_cast<size_t>(shape_.head_dim)};
}

KvTensor KvTensor::Tokens(int begin, int count) const {
  KvShape shape = shape_;
  shape.tokens = count;
  KvTensor part(shape);
  ForEachRow(shape, [&](int layer, KvPart kv_part, int head, int token) {
    const auto from = Row(layer, kv_part, head, begin + token);
    std::copy(from.begin(), from.end(),
              part.Row(layer, kv_part, head, token).begin());
  });
  return part;
}

void KvTensor::Place(int begin, const KvTensor& part) {
  ForEachRow(part.shape_, [&](int layer, KvPart kv_part, int head, int token) {
    const auto from = part.Row(layer, kv_part, head, token);
    std::copy(from.begin(), from.end(),
              Row(layer, kv_part, head, begin + token).begin());
  });
}

}  // namespace kdn::bench
