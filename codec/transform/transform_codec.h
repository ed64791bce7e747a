#ifndef KDN_CODEC_TRANSFORM_TRANSFORM_CODEC_H_
#define KDN_CODEC_TRANSFORM_TRANSFORM_CODEC_H_

#include <array>

#include "codec/stream_codec.h"

namespace kdn::codec {

// The codec of the levels base, base+1, base+2 and archive. Rows before RoPE
// are transformed to decorrelated components (a Karhunen-Loeve transform per
// stream, calibrated once per model, as in KVTC, arXiv 2511.01815), which are
// quantised uniformly and entropy-coded with static tables; calibration.h has
// the arithmetic. A token is kept in bf16 instead if a component is outside the
// quantiser's range, if a decoded value might be outside the dtype's range, or
// if the token lies far from the others (raw_tokens.h). So the error of every
// finite input is bounded; docs/formats.md, "Errors", has the bound.
class TransformCodec final : public StreamCodec {
 public:
  KForm k_form() const override { return KForm::kBeforeRope; }
  size_t BytesMax(const StreamShape& shape, Level level) const override;
  bool MayHaveBytes(const StreamShape& shape, Level level,
                    uint32_t bytes) const override;
  // INVALID_ARGUMENT when a value is not finite before RoPE.
  absl::Status Encode(const StreamShape& shape, absl::Span<const Rows> heads,
                      const StreamContext& context,
                      absl::Span<StreamRoom> steps) const override;
  absl::Status Decode(const StreamShape& shape, absl::Span<StreamReader> steps,
                      const StreamContext& context,
                      absl::Span<const MutableRows> heads) const override;
  absl::Status DecodeEach(const StreamJob& job,
                          absl::FunctionRef<void(size_t)> at) const override;
  std::array<absl::Status, 2> DecodeTwo(const StreamJob& first,
                                        const StreamJob& second) const override;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_TRANSFORM_CODEC_H_
