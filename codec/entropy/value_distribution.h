#ifndef KDN_CODEC_ENTROPY_VALUE_DISTRIBUTION_H_
#define KDN_CODEC_ENTROPY_VALUE_DISTRIBUTION_H_

#include <array>
#include <cstdint>

#include "codec/calibration/calibration.h"
#include "codec/entropy/format_coder.h"

namespace kdn::codec {

// How the values of the levels base, base+1 and base+2 depend on the values of
// the finest quantiser, and symbol tables computed from counts of these values.
// Integer arithmetic: every machine computes the same tables.

inline constexpr int kValueMax = 127;
// How often each value of -127 to 127 occurs, at [value + kValueMax].
using ValueCounts = std::array<uint64_t, 2 * kValueMax + 1>;

// The value one level coarser: a third, rounded to the nearest integer.
constexpr int Coarser(int value) {
  return value >= 0 ? (value + 1) / 3 : -((1 - value) / 3);
}
// The value at level `step` (0: base) for a value of the finest level.
constexpr int AtStep(int finest, int step) {
  for (int i = step; i + 1 < kLadderSteps; ++i) finest = Coarser(finest);
  return finest;
}
// The refinement from `before` at one level to `value` at the next. Its sign is
// relative to the sign of `before`: -1 is towards zero unless `before` is 0.
constexpr int Refinement(int value, int before) {
  const int difference = value - 3 * before;
  return before < 0 ? -difference : difference;
}

// Counts of the values that a band codes at `step`, from counts of its finest
// values. If `before` is true (the level before codes the band), the band codes
// refinements, else values.
ValueCounts CodedCounts(const ValueCounts& finest, int step, bool before);

// The table of a band of `mode` whose values are independent and have the
// counts `coded`. Symbols with a probability below 2^-17 get no frequency:
// patches for their values cost less. The zero symbol always has a frequency.
FormatCoder::Table SymbolTable(const ValueCounts& coded, BandMode mode);

}  // namespace kdn::codec

#endif  // KDN_CODEC_ENTROPY_VALUE_DISTRIBUTION_H_
