#ifndef KDN_CODEC_KERNELS_ROW_ROTATION_H_
#define KDN_CODEC_KERNELS_ROW_ROTATION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kv/line_vector.h"
#include "kv/rope_spec.h"

namespace kdn::codec {

// A rotation of the K rows of one chunk: it applies RoPE, undoes it, or moves K
// to other positions. The cosines and sines of each token are computed once and
// applied to every head and layer.
//
// Representation: one row of cos and sin, rotary_dim() / 2 floats each, per
// token that moves. Tokens that move equally far do not share a row: an
// engine's angle is an fp32 product with the position, its rounding error
// depends on the position, and only the same product undoes it. Immutable after
// construction.
class RowRotation {
 public:
  // Applies RoPE at `positions`.
  static RowRotation Apply(const RopeTable& rope,
                           absl::Span<const int32_t> positions);
  // Undoes RoPE at `positions`.
  static RowRotation Undo(const RopeTable& rope,
                          absl::Span<const int32_t> positions);
  // Moves K from RoPE at `from` to RoPE at `to`. REQUIRES: equal sizes.
  static RowRotation Between(const RopeTable& rope,
                             absl::Span<const int32_t> from,
                             absl::Span<const int32_t> to);

  // The number of elements of a head that turn, from the first on. The others
  // do not depend on the position.
  int rotary_dim() const { return 2 * pairs_; }
  // False when the token's rows stay as they are.
  bool Moves(int token) const { return row_of_token_[token] >= 0; }
  // The cosines and sines of a token, rotary_dim() / 2 of each, for callers
  // that rotate in a loop of their own. REQUIRES: Moves(token).
  const float* cos(int token) const {
    return rows_.data() +
           2 * static_cast<size_t>(row_of_token_[token]) * pairs_;
  }
  const float* sin(int token) const { return cos(token) + pairs_; }
  RopePairing pairing() const { return pairing_; }
  // Turns the first rotary_dim() elements of a head, in place.
  // REQUIRES: Moves(token).
  void Rotate(int token, float* head) const;

 private:
  explicit RowRotation(const RopeTable& rope);
  // Adds a row and returns the places of its cosines and sines.
  struct Row {
    float* cos;
    float* sin;
  };
  Row AddRow();

  RopePairing pairing_;
  int pairs_;
  // cos then sin of row 0, of row 1, ...
  LineVector<float> rows_;
  // By token; -1 for a token that stays.
  std::vector<int32_t> row_of_token_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_KERNELS_ROW_ROTATION_H_
