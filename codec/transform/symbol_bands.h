#ifndef KDN_CODEC_TRANSFORM_SYMBOL_BANDS_H_
#define KDN_CODEC_TRANSFORM_SYMBOL_BANDS_H_

#include <cstddef>
#include <cstdint>

#include "codec/calibration/calibration.h"
#include "kv/isa.h"

namespace kdn::codec {

// Packs the values of one band into symbols. A symbol is a byte that holds one
// value plus 128; or two values plus 8, in a nibble each; or four values plus
// 2, in two bits each. The first value has the lowest bits. The symbols of a
// token lie side by side, so that a step of 32 lanes takes two, four or eight
// whole tokens.

// A run of tokens is padded with zeros to a multiple of this, which is whole
// steps in every mode.
inline constexpr int kTokenBlock = 8;
constexpr int PaddedTokens(int tokens) {
  return (tokens + kTokenBlock - 1) / kTokenBlock * kTokenBlock;
}

// 1, 2 or 4. REQUIRES: the band is coded.
constexpr int ValuesPerSymbol(BandMode mode) {
  return 1 << (static_cast<int>(mode) - 1);
}
constexpr int SymbolsPerToken(BandMode mode) {
  return kBandComponents / ValuesPerSymbol(mode);
}
constexpr int LargestValue(BandMode mode) {
  return mode == BandMode::kSingle ? 127 : mode == BandMode::kPair ? 7 : 1;
}
// The number of the bit of a lane that is set if the lane's symbol is of the
// band's second half.
constexpr int HalfBit(BandMode mode) { return 4 - static_cast<int>(mode); }
// The symbol of values that are all zero.
constexpr uint8_t ZeroSymbol(BandMode mode) {
  return mode == BandMode::kSingle ? 0x80
         : mode == BandMode::kPair ? 0x88
                                   : 0xaa;
}
constexpr FormatCoder::Run RunOf(const BandStep& band,
                                 const FormatCoder::Table* tables, int tokens) {
  FormatCoder::Run run;
  run.steps = static_cast<size_t>(PaddedTokens(tokens)) *
              SymbolsPerToken(band.mode) / FormatCoder::kLanes;
  run.tables[0] = tables + band.tables[0];
  run.tables[1] = tables + band.tables[1];
  run.half_bit = HalfBit(band.mode);
  return run;
}

// The symbol of ValuesPerSymbol(mode) values. REQUIRES: no value is larger in
// magnitude than LargestValue(mode).
uint8_t SymbolOf(BandMode mode, const int8_t* values);
// The largest m such that the table codes the symbols of all values from -m to
// m; -1 when it does not code zeros either. REQUIRES: the band is coded.
int SurelyCoded(BandMode mode, const FormatCoder::Table& table);

// The values of some tokens in one band, at a level and at the level before.
// Tokens are `stride` bytes apart.
struct RefinedBand {
  const int8_t* now = nullptr;
  const int8_t* before = nullptr;
  size_t stride = 0;
  int tokens = 0;
};
// Packs the refinements from `before` to `now`: now - 3 * before, negated where
// `before` is below zero. kernels::RefineByThirds undoes that. `limits` has the
// largest magnitude for each of the 16 components; -1 allows no value. Stops at
// the first token with a refinement past its limit, and returns the number of
// tokens before it. REQUIRES: the band is coded; no limit is above
// LargestValue(mode).
int PackRefinements(BandMode mode, const RefinedBand& band,
                    const int8_t* limits, uint8_t* symbols);
// Unpacks the values of `tokens` tokens, which lie `stride` bytes apart.
// `symbols` may be any bytes. A band that is not coded becomes zeros.
void UnpackBand(BandMode mode, const uint8_t* symbols, int tokens,
                int8_t* values, size_t stride);
// UnpackBand of a coded band, and then kernels::ToCellMiddles. REQUIRES:
// `tokens` is a multiple of kTokenBlock; `cell` is 3 or 9, and `shrink` at most
// 127.
void UnpackToMiddles(BandMode mode, const uint8_t* symbols, int tokens,
                     int cell, uint8_t shrink, int8_t* values, size_t stride,
                     Isa isa);

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_SYMBOL_BANDS_H_
