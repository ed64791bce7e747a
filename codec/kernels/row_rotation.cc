#include "codec/kernels/row_rotation.h"

#include "codec/kernels/vector_kernels.h"
#include "kv/check.h"

namespace kdn::codec {

RowRotation::RowRotation(const RopeTable& rope)
    : pairing_(rope.spec().pairing), pairs_(rope.pairs()) {}

RowRotation::Row RowRotation::AddRow() {
  const size_t at = rows_.size();
  rows_.resize(at + 2 * static_cast<size_t>(pairs_));
  return {rows_.data() + at, rows_.data() + at + pairs_};
}

RowRotation RowRotation::Apply(const RopeTable& rope,
                               absl::Span<const int32_t> positions) {
  RowRotation result(rope);
  result.rows_.reserve(2 * positions.size() * rope.pairs());
  for (size_t i = 0; i < positions.size(); ++i) {
    const Row row = result.AddRow();
    rope.CosSin(positions[i], row.cos, row.sin);
    result.row_of_token_.push_back(static_cast<int32_t>(i));
  }
  return result;
}

RowRotation RowRotation::Undo(const RopeTable& rope,
                              absl::Span<const int32_t> positions) {
  RowRotation result = Apply(rope, positions);
  // The table holds a rotation times the attention factor a. The inverse is the
  // transposed rotation divided by a, so the table is divided by a squared.
  const double factor = rope.spec().attention_factor;
  const float inverse = static_cast<float>(1.0 / (factor * factor));
  const size_t pairs = result.pairs_;
  for (size_t i = 0; i < result.rows_.size(); ++i) {
    const bool is_sin = i % (2 * pairs) >= pairs;
    result.rows_[i] *= is_sin ? -inverse : inverse;
  }
  return result;
}

RowRotation RowRotation::Between(const RopeTable& rope,
                                 absl::Span<const int32_t> from,
                                 absl::Span<const int32_t> to) {
  KDN_CHECK(from.size() == to.size(), "one wanted position per token");
  RowRotation result(rope);
  int32_t rows = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] == to[i]) {
      result.row_of_token_.push_back(-1);
      continue;
    }
    const Row row = result.AddRow();
    rope.DeltaCosSin(from[i], to[i], row.cos, row.sin);
    result.row_of_token_.push_back(rows++);
  }
  return result;
}

void RowRotation::Rotate(int token, float* head) const {
  KDN_DCHECK(Moves(token), "the token stays as it is");
  switch (pairing_) {
    case RopePairing::kNeoX:
      kernels::RotateHalves(cos(token), sin(token), pairs_, head);
      return;
    case RopePairing::kGptJ:
      kernels::RotateNeighbours(cos(token), sin(token), pairs_, head);
      return;
  }
}

}  // namespace kdn::codec
