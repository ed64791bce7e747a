#include "codec/kernels/source_rows.h"

#include <bit>
#include <cstdint>

#include "codec/kernels/vector_kernels.h"

namespace kdn::codec {

bool SourceRows::Load(const StreamShape& shape, absl::Span<const Rows> heads,
                      const RowRotation* rotation) {
  dim_ = static_cast<size_t>(shape.heads) * shape.head_dim;
  dtype_ = shape.dtype;
  values_.resize(shape.values());
  largest_.resize(shape.tokens);
  float* row = values_.data();
  for (int token = 0; token < shape.tokens; ++token) {
    const bool turns = rotation != nullptr && rotation->Moves(token);
    for (size_t head = 0; head < heads.size(); ++head) {
      kernels::LoadRow(shape.dtype, heads[head].At(token), shape.head_dim, row);
      if (turns && static_cast<int>(head) < shape.k_heads()) {
        rotation->Rotate(token, row);
      }
      row += shape.head_dim;
    }
    const uint32_t bits = kernels::MaxAbsBits(Row(token), dim_);
    if (bits >= kernels::kInfinityBits) return false;
    largest_[token] = std::bit_cast<float>(bits);
  }
  return true;
}

}  // namespace kdn::codec
