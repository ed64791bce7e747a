#ifndef KDN_CODEC_LOSSLESS_CODEC_H_
#define KDN_CODEC_LOSSLESS_CODEC_H_

#include "codec/stream_codec.h"

namespace kdn::codec {

// The engine's own elements, [token][dim]. K stays as it was rotated, so that
// it returns bit for bit where it was computed; elsewhere it is turned by the
// difference in fp32 and rounded to the dtype once.
class LosslessCodec final : public StreamCodec {
 public:
  KForm k_form() const override { return KForm::kAsComputed; }
  size_t BytesMax(const StreamShape& shape) const override;
  bool MayHaveBytes(const StreamShape& shape, uint32_t bytes) const override;
  // REQUIRES: no rotation.
  absl::StatusOr<size_t> Encode(const StreamShape& shape, const Rows& rows,
                                const RowRotation* rotation,
                                absl::Span<std::byte> out) const override;
  absl::Status Decode(const StreamShape& shape, StreamReader* stream,
                      const RowRotation* rotation,
                      const MutableRows& rows) const override;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_LOSSLESS_CODEC_H_
