#ifndef KDN_CODEC_TRANSFORM_SYMBOL_BANDS_H_
#define KDN_CODEC_TRANSFORM_SYMBOL_BANDS_H_

#include <cstddef>
#include <cstdint>

#include "codec/calibration/calibration.h"
#include "codec/kernels/isa.h"

namespace kdn::codec {

// How the values of one band become symbols. A symbol is a byte: one value plus
// 128; two values plus 8, a nibble each; or four values plus 2, two bits each.
// The first value has the lowest bits. Symbols of a token lie side by side, so
// that a step of 32 lanes is two, four or eight whole tokens.

// What a run of tokens is padded to, with zeros: whole steps in every mode.
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
// The lane's bit that says whether a symbol is of the band's second half.
constexpr int HalfBit(BandMode mode) { return 4 - static_cast<int>(mode); }
// Of values that are all zero.
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

// The symbol of ValuesPerSymbol(mode) values. REQUIRES: none is larger in
// magnitude than LargestValue(mode).
uint8_t SymbolOf(BandMode mode, const int8_t* values);
// The largest m such that the table codes the symbols of all values from -m to
// m; -1 when it does not code zeros. REQUIRES: the band is coded.
int SurelyCoded(BandMode mode, const FormatCoder::Table& table);

// A band of some tokens, `stride` bytes apart: what a level makes of it and
// what the level before did.
struct RefinedBand {
  const int8_t* now = nullptr;
  const int8_t* before = nullptr;
  size_t stride = 0;
  int tokens = 0;
};
// Packs what refines `before` to `now`: the differences now - 3 before, in the
// sense of `before`. kernels::RefineByThirds undoes that. Stops at the first
// token with one larger in magnitude than its component's of 16 limits, -1
// admitting nothing; returns how many tokens it packed. REQUIRES: the band is
// coded; no limit is past LargestValue(mode).
int PackRefinements(BandMode mode, const RefinedBand& band,
                    const int8_t* limits, uint8_t* symbols);
// Values of `tokens` tokens, `stride` bytes apart. Any symbol gives some.
void UnpackBand(BandMode mode, const uint8_t* symbols, int tokens,
                int8_t* values, size_t stride);
// The same of a coded band, and takes them to the middles of their cells:
// kernels::ToCellMiddles. REQUIRES: `tokens` is a multiple of kTokenBlock;
// `cell` is 3 or 9, and `shrink` at most 127.
void UnpackToMiddles(BandMode mode, const uint8_t* symbols, int tokens,
                     int cell, uint8_t shrink, int8_t* values, size_t stride,
                     Isa isa);

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_SYMBOL_BANDS_H_
