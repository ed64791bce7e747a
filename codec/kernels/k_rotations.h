#ifndef KDN_CODEC_KERNELS_K_ROTATIONS_H_
#define KDN_CODEC_KERNELS_K_ROTATIONS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/base/call_once.h"
#include "codec/format/object.h"
#include "codec/kernels/row_rotation.h"
#include "codec/stream_codec.h"

namespace kdn::codec {

// The rotations that bring one object's K to the positions a reader wants, for
// either form in which K is coded. Each is computed when first asked for: a
// table costs a sine and a cosine per (token, pair), about a tenth of a chunk's
// decoding, and most readers need one form or none. Thread-safe.
class KRotations {
 public:
  // REQUIRES: one wanted position per token. `computed_at` is copied.
  KRotations(const RopeSpec& rope, std::vector<int32_t> computed_at,
             std::vector<int32_t> wanted_at);

  // Null when K of this form is already as the reader wants it.
  const RowRotation* For(KForm form) const;

 private:
  const RopeTable rope_;
  const std::vector<int32_t> computed_at_;
  const std::vector<int32_t> wanted_at_;
  mutable absl::once_flag between_once_;
  mutable absl::once_flag apply_once_;
  mutable std::optional<RowRotation> between_;
  mutable std::optional<RowRotation> apply_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_KERNELS_K_ROTATIONS_H_
