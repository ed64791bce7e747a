#ifndef KDN_CODEC_KERNELS_SOURCE_ROWS_H_
#define KDN_CODEC_KERNELS_SOURCE_ROWS_H_

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "codec/kernels/row_rotation.h"
#include "codec/stream_codec.h"
#include "kv/line_vector.h"

namespace kdn::codec {

// The rows of one stream as a transform takes them: all heads side by side,
// before RoPE, in floats.
class SourceRows {
 public:
  // `rotation` undoes RoPE; null: the rows stay as they are. False, and the
  // rows are good for nothing, when a value is not finite then.
  bool Load(const StreamShape& shape, absl::Span<const Rows> heads,
            const RowRotation* rotation);

  // Of the engine's rows.
  Dtype dtype() const { return dtype_; }
  const float* Row(int token) const {
    return values_.data() + static_cast<size_t>(token) * dim_;
  }
  // The largest magnitude in a row.
  float Largest(int token) const { return largest_[token]; }
  // [token][dim]
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
