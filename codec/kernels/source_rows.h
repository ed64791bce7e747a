#ifndef KDN_CODEC_KERNELS_SOURCE_ROWS_H_
#define KDN_CODEC_KERNELS_SOURCE_ROWS_H_

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "codec/kernels/row_rotation.h"
#include "codec/stream_codec.h"
#include "kv/line_vector.h"

namespace kdn::codec {

// The rows of one stream as a transform needs them: in floats, before RoPE,
// with all heads side by side.
class SourceRows {
 public:
  // Loads the rows. `rotation` undoes the RoPE of K; null: K stays as it is.
  // False when a value is not finite after that; then the rows are unusable.
  bool Load(const StreamShape& shape, absl::Span<const Rows> heads,
            const RowRotation* rotation);

  // The element type of the engine's rows.
  Dtype dtype() const { return dtype_; }
  const float* Row(int token) const {
    return values_.data() + static_cast<size_t>(token) * dim_;
  }
  // The largest magnitude in a token's row.
  float Largest(int token) const { return largest_[token]; }
  // All rows, [token][dim].
  absl::Span<const float> values() const {
    return {values_.data(), largest_.size() * dim_};
  }

 private:
  size_t dim_ = 0;
  Dtype dtype_ = Dtype::kBf16;
  LineVector<float> values_;
  std::vector<float> largest_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_KERNELS_SOURCE_ROWS_H_
