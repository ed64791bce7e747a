#ifndef KDN_CODEC_INT8_CODEC_H_
#define KDN_CODEC_INT8_CODEC_H_

#include "codec/stream_codec.h"

namespace kdn::codec {

// 8 bits for each value, symmetric: value = q * scale, q in [-127, 127].
//
// K is coded before RoPE and has a scale for each channel over the chunk's
// tokens: outliers of K stay in few channels, which RoPE would mix with their
// partners (KVQuant, arXiv 2401.18079, sections 3.1 and 3.2). V has a scale for
// each token (KIVI, arXiv 2402.02750). The stream has the fp32 scales, then
// [token][dim] of int8. Every decoded value is within half a scale of the
// encoder's value, apart from fp32 rounding.
class Int8Codec final : public StreamCodec {
 public:
  KForm k_form() const override { return KForm::kBeforeRope; }
  size_t BytesMax(const StreamShape& shape, Level level) const override;
  bool MayHaveBytes(const StreamShape& shape, Level level,
                    uint32_t bytes) const override;
  absl::Status Encode(const StreamShape& shape, absl::Span<const Rows> heads,
                      const StreamContext& context,
                      absl::Span<StreamRoom> steps) const override;
  absl::Status Decode(const StreamShape& shape, absl::Span<StreamReader> steps,
                      const StreamContext& context,
                      absl::Span<const MutableRows> heads) const override;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_INT8_CODEC_H_
