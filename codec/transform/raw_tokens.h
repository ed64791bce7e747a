#ifndef KDN_CODEC_TRANSFORM_RAW_TOKENS_H_
#define KDN_CODEC_TRANSFORM_RAW_TOKENS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace kdn::codec {

// Tokens that a transform-coded stream keeps as they are because their rows lie
// far from the others: attention sinks, and outliers. Coded, they would cost
// many patches, and a stream's own mean and gain, or a calibration, would be
// made for them instead of for the rest. A raw token takes 16 bits a value, so
// being first is not enough; docs/architecture.md has the measurement.

// The positions where attention sinks are: StreamingLLM (Xiao et al., arXiv
// 2309.17453) keeps the first four tokens, KVQuant (arXiv 2401.18079) the first
// in fp16.
inline constexpr int kSinkPositions = 4;
// A token is far whose row is more than so many times as far from the mean as
// the stream's median row, which no few outliers move; and one that may be a
// sink.
inline constexpr double kFarDistances = 6.0;
inline constexpr double kFarSinkDistances = 3.0;

// The most that are taken for far, those farthest: a quarter bit a value from
// 256 tokens on.
constexpr int FarTokensMax(int tokens) { return std::max(4, tokens / 64); }

// The far tokens, ascending; fewer than half of them. Rows are [token][dim],
// before RoPE, `positions` those of the tokens. REQUIRES: values are finite.
std::vector<int> FarTokens(absl::Span<const float> rows,
                           absl::Span<const float> mean,
                           absl::Span<const int32_t> positions);

// The same of rows that have no mean yet: it is that of the other rows.
struct CentredRows {
  std::vector<float> mean;
  std::vector<int> far;
};
CentredRows CentreWithoutFar(absl::Span<const float> rows, int dim,
                             absl::Span<const int32_t> positions);

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_RAW_TOKENS_H_
