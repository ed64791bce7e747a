#ifndef KDN_CODEC_TRANSFORM_TRANSFORM_CODEC_H_
#define KDN_CODEC_TRANSFORM_TRANSFORM_CODEC_H_

#include <array>

#include "codec/stream_codec.h"

namespace kdn::codec {

// The levels base, base+1 and base+2: rows before RoPE are taken to
// decorrelated components (a Karhunen-Loeve transform per stream, calibrated
// once per model, as in KVTC, arXiv 2511.01815), quantised uniformly and
// entropy-coded with static tables; see calibration.h for the arithmetic. A
// token with a component outside the quantiser's range, or that might come out
// past the dtype's, is kept as it is in bf16; so are the few that lie far from
// the others (raw_tokens.h). So the error of every finite input is bounded:
// docs/formats.md, "Errors", says by what.
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
