#ifndef KDN_CODEC_ENTROPY_VALUE_DISTRIBUTION_H_
#define KDN_CODEC_ENTROPY_VALUE_DISTRIBUTION_H_

#include <array>
#include <cstdint>

#include "codec/calibration/calibration.h"
#include "codec/entropy/format_coder.h"

namespace kdn::codec {

// The arithmetic of thirds, and the tables that follow from how often each
// value of the finest quantiser occurs. Integers only: a table does not depend
// on where it was computed.

inline constexpr int kValueMax = 127;
// How often each of -127 to 127 occurs, at [value + kValueMax].
using ValueCounts = std::array<uint64_t, 2 * kValueMax + 1>;

// The value one level coarser: a third, rounded to the nearest.
constexpr int Coarser(int value) {
  return value >= 0 ? (value + 1) / 3 : -((1 - value) / 3);
}
// The value of level `step` for one of the finest level.
constexpr int AtStep(int finest, int step) {
  for (int i = step; i + 1 < kLadderSteps; ++i) finest = Coarser(finest);
  return finest;
}
// What refines `before` to `value`, in the sense of `before`: -1 is towards
// zero.
constexpr int Refinement(int value, int before) {
  const int difference = value - 3 * before;
  return before < 0 ? -difference : difference;
}

// Of what is coded at `step`, given the counts of the finest values: the values
// themselves where the band was not coded `before`, else their refinements.
ValueCounts CodedCounts(const ValueCounts& finest, int step, bool before);

// The table of symbols of `mode` whose values are independent and occur as
// `coded` says. Symbols that come less often than once in 2^17 get no
// frequency: listing them apart costs less. The zero symbol always has one.
FormatCoder::Table SymbolTable(const ValueCounts& coded, BandMode mode);

}  // namespace kdn::codec

#endif  // KDN_CODEC_ENTROPY_VALUE_DISTRIBUTION_H_
