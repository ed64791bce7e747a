#ifndef KDN_CODEC_LOSSLESS_LOSSLESS_CODEC_H_
#define KDN_CODEC_LOSSLESS_LOSSLESS_CODEC_H_

#include "codec/stream_codec.h"

namespace kdn::codec {

// The engine's own elements, bit for bit. A stream is a byte for its form, then
// either the elements [token][dim] (form 0) or the elements coded by
// codec/lossless/exponent_coding.h (form 1). Encode writes the shorter form,
// unless its context asks for the elements. K is kept as
// the engine rotated it, so that it is exact at the positions where it was
// computed. For other positions it is turned by the difference in fp32 and
// rounded to the dtype once.
class LosslessCodec final : public StreamCodec {
 public:
  KForm k_form() const override { return KForm::kAsComputed; }
  bool is_exact() const override { return true; }
  size_t BytesMax(const StreamShape& shape, Level level) const override;
  bool MayHaveBytes(const StreamShape& shape, Level level,
                    uint32_t bytes) const override;
  absl::Status Encode(const StreamShape& shape, absl::Span<const Rows> heads,
                      const StreamContext& context,
                      absl::Span<StreamRoom> steps) const override;
  // DATA_LOSS when the stream has neither form.
  absl::Status Decode(const StreamShape& shape, absl::Span<StreamReader> steps,
                      const StreamContext& context,
                      absl::Span<const MutableRows> heads) const override;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_LOSSLESS_LOSSLESS_CODEC_H_
