#ifndef KDN_CODEC_TRANSFORM_RAW_TOKENS_H_
#define KDN_CODEC_TRANSFORM_RAW_TOKENS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace kdn::codec {

// Raw tokens: a transform-coded stream keeps their rows in bf16. Some lie far
// from the other rows: if they were coded, they would take many patches, and
// they would distort the stream's own mean and gain, or the calibration. The
// token at position 0 is an attention sink in most models: many heads pay most
// of their attention to it, so an error in its row costs more than an error in
// any other row, although its V is close to zero. A raw token takes 16 bits per
// value.

// A chunk of so many tokens keeps the token at position 0 raw. In a shorter
// chunk that would take too large a share of the bytes.
inline constexpr int kSinkTokensMin = 16;
// Other attention sinks are at the first positions: StreamingLLM (Xiao et al.,
// arXiv 2309.17453) keeps the first four tokens, KVQuant (arXiv 2401.18079)
// keeps the first token in fp16.
inline constexpr int kSinkPositions = 4;
// A token is far if its row is more than so many times as far from the mean as
// the stream's median row. A few outliers do not move the median. Tokens at the
// positions of sinks have the lower limit.
inline constexpr double kFarDistances = 6.0;
inline constexpr double kFarSinkDistances = 3.0;

// The most tokens that count as far, besides the token at position 0; if more
// tokens exceed the limit, only the farthest count. From 256 tokens on, this
// many raw tokens take at most a quarter of a bit per value.
constexpr int FarTokensMax(int tokens) { return std::max(4, tokens / 64); }

// The indices of the far tokens, ascending; fewer than half of all tokens. The
// first of at least kSinkTokensMin tokens is among them if it is at position 0.
// `rows` is [token][dim] before RoPE, `positions` has the position of each
// token. REQUIRES: values are finite.
std::vector<int> FarTokens(absl::Span<const float> rows,
                           absl::Span<const float> mean,
                           absl::Span<const int32_t> positions);

// The far tokens of rows that have no mean yet, and the mean of all other rows.
struct CentredRows {
  std::vector<float> mean;
  std::vector<int> far;
};
CentredRows CentreWithoutFar(absl::Span<const float> rows, int dim,
                             absl::Span<const int32_t> positions);

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_RAW_TOKENS_H_
