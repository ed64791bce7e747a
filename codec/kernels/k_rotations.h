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

// The rotations that bring one object's K to the positions that a reader wants,
// one for each form in which K is coded. A rotation is computed on first use:
// it takes a sine and a cosine per token and pair, about a tenth of the time of
// decoding a chunk, and most readers need one form or none. Thread-safe.
class KRotations {
 public:
  // The position of each token when its KV was computed, and where the reader
  // wants it. REQUIRES: both lists have one position per token.
  KRotations(const RopeSpec& rope, std::vector<int32_t> computed_at,
             std::vector<int32_t> wanted_at);

  // The rotation for K of this form; null when K needs none.
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
