#include "codec/transform/symbol_bands.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "codec/kernels/vector_kernels.h"
#include "kv/check.h"

#if defined(__x86_64__)
#include <tmmintrin.h>
#endif

namespace kdn::codec {
namespace {

// The values of a token, in lanes of one, two and four bytes. Bytes are
// unsigned, so that sums wrap around; only comparisons use signed bytes.
using ByteLanes = uint8_t __attribute__((vector_size(kBandComponents)));
using SignedLanes = int8_t __attribute__((vector_size(kBandComponents)));
using PairLanes = uint16_t __attribute__((vector_size(kBandComponents)));
using QuadLanes = uint32_t __attribute__((vector_size(kBandComponents)));
using PairSymbols = uint8_t __attribute__((vector_size(kBandComponents / 2)));
using QuadSymbols = uint8_t __attribute__((vector_size(kBandComponents / 4)));

template <typename Lanes>
inline void Load(const int8_t* from, Lanes* lanes) {
  std::memcpy(lanes, from, sizeof(*lanes));
}

// Packs the values of each lane, which are not negative, into one symbol: moves
// their bits down to the lane's lowest byte.
template <typename Lanes, typename Symbols>
inline void PackLanes(ByteLanes values, uint8_t* symbols) {
  constexpr int kValues = sizeof(Lanes) / sizeof(Symbols);
  constexpr int kUnused = 8 - 8 / kValues;  // bits of a value
  const auto lanes = std::bit_cast<Lanes>(values);
  Lanes packed = lanes;
  for (int i = 1; i < kValues; ++i) packed |= lanes >> i * kUnused;
  const Symbols bytes = __builtin_convertvector(packed, Symbols);
  std::memcpy(symbols, &bytes, sizeof(bytes));
}

template <BandMode kMode>
inline void PackToken(ByteLanes values, uint8_t* symbols) {
  if constexpr (kMode == BandMode::kSingle) {
    values += uint8_t{128};
    std::memcpy(symbols, &values, sizeof(values));
  } else if constexpr (kMode == BandMode::kPair) {
    PackLanes<PairLanes, PairSymbols>(values + uint8_t{8}, symbols);
  } else {
    PackLanes<QuadLanes, QuadSymbols>(values + uint8_t{2}, symbols);
  }
}

template <BandMode kMode>
int Pack(const RefinedBand& band, const int8_t* limits, uint8_t* symbols) {
  SignedLanes limit;
  Load(limits, &limit);
  const int8_t* now = band.now;
  const int8_t* before = band.before;
  for (int t = 0; t < band.tokens; ++t) {
    ByteLanes value;
    ByteLanes was;
    Load(now, &value);
    Load(before, &was);
    const auto negative =
        std::bit_cast<ByteLanes>(std::bit_cast<SignedLanes>(was) < 0);
    const ByteLanes difference = value - was - was - was;
    const ByteLanes sensed = (difference ^ negative) - negative;
    const auto refinement = std::bit_cast<SignedLanes>(sensed);
    const SignedLanes outside = (refinement > limit) | (refinement < -limit);
    const auto halves = std::bit_cast<std::array<uint64_t, 2>>(outside);
    if ((halves[0] | halves[1]) != 0) return t;
    PackToken<kMode>(sensed, symbols);
    now += band.stride;
    before += band.stride;
    symbols += SymbolsPerToken(kMode);
  }
  return band.tokens;
}

// The largest magnitude of the values in a symbol; above LargestValue for a
// byte that is not a symbol.
constexpr int ReachOf(BandMode mode, int symbol) {
  const int bits = 8 / ValuesPerSymbol(mode);
  const int zero = 1 << (bits - 1);
  int reach = 0;
  for (int at = 0; at < 8; at += bits) {
    const int value = (symbol >> at & (2 * zero - 1)) - zero;
    reach = std::max(reach, value < 0 ? -value : value);
  }
  return reach;
}

// All bytes, ordered by their reach.
using Order = std::array<uint8_t, FormatCoder::kSymbols>;
constexpr Order OrderOf(BandMode mode) {
  Order order{};
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint8_t>(i);
  std::sort(order.begin(), order.end(), [mode](uint8_t a, uint8_t b) {
    return ReachOf(mode, a) < ReachOf(mode, b);
  });
  return order;
}

#if defined(__x86_64__)

// The 16 values of a token fill one register of SSE2, which every x86-64 CPU
// has.
void UnpackSingle(const uint8_t* symbols, int8_t* values) {
  const __m128i bytes =
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols));
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(values),
      _mm_xor_si128(bytes, _mm_set1_epi8(static_cast<char>(0x80))));
}

void UnpackPairs(const uint8_t* symbols, int8_t* values) {
  const __m128i bytes =
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(symbols));
  const __m128i nibble = _mm_set1_epi8(15);
  const __m128i low = _mm_and_si128(bytes, nibble);
  const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(values),
      _mm_sub_epi8(_mm_unpacklo_epi8(low, high), _mm_set1_epi8(8)));
}

void UnpackQuads(const uint8_t* symbols, int8_t* values) {
  int32_t four;
  std::memcpy(&four, symbols, sizeof(four));
  const __m128i zero = _mm_setzero_si128();
  // Widens each symbol to 32 bits, then moves its two-bit fields a byte apart.
  const __m128i wide = _mm_unpacklo_epi16(
      _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero);
  const __m128i spread = _mm_or_si128(
      _mm_or_si128(wide, _mm_slli_epi32(wide, 6)),
      _mm_or_si128(_mm_slli_epi32(wide, 12), _mm_slli_epi32(wide, 18)));
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(values),
      _mm_sub_epi8(_mm_and_si128(spread, _mm_set1_epi8(3)), _mm_set1_epi8(2)));
}

#else

void UnpackSingle(const uint8_t* symbols, int8_t* values) {
  for (int i = 0; i < kBandComponents; ++i) {
    values[i] = static_cast<int8_t>(symbols[i] ^ 0x80);
  }
}

void UnpackPairs(const uint8_t* symbols, int8_t* values) {
  for (int i = 0; i < kBandComponents; ++i) {
    const int nibble = symbols[i / 2] >> (4 * (i % 2)) & 15;
    values[i] = static_cast<int8_t>(nibble - 8);
  }
}

void UnpackQuads(const uint8_t* symbols, int8_t* values) {
  for (int i = 0; i < kBandComponents; ++i) {
    const int field = symbols[i / 4] >> (2 * (i % 4)) & 3;
    values[i] = static_cast<int8_t>(field - 2);
  }
}

#endif

template <void (*Unpack)(const uint8_t*, int8_t*)>
void UnpackTokens(const uint8_t* symbols, int per_token, int tokens,
                  int8_t* values, size_t stride) {
  for (int t = 0; t < tokens; ++t, symbols += per_token, values += stride) {
    Unpack(symbols, values);
  }
}

}  // namespace

uint8_t SymbolOf(BandMode mode, const int8_t* values) {
  switch (mode) {
    case BandMode::kSingle:
      return static_cast<uint8_t>(values[0] + 128);
    case BandMode::kPair:
      return static_cast<uint8_t>((values[0] + 8) | (values[1] + 8) << 4);
    case BandMode::kQuad:
      return static_cast<uint8_t>((values[0] + 2) | (values[1] + 2) << 2 |
                                  (values[2] + 2) << 4 | (values[3] + 2) << 6);
    case BandMode::kAbsent:
      break;
  }
  return 0;
}

int SurelyCoded(BandMode mode, const FormatCoder::Table& table) {
  static constexpr Order kOrders[] = {OrderOf(BandMode::kSingle),
                                      OrderOf(BandMode::kPair),
                                      OrderOf(BandMode::kQuad)};
  int reach = LargestValue(mode) + 1;
  for (const uint8_t symbol : kOrders[static_cast<int>(mode) - 1]) {
    if (table.frequency(symbol) > 0) continue;
    reach = std::min(reach, ReachOf(mode, symbol));
    break;
  }
  return reach - 1;
}

int PackRefinements(BandMode mode, const RefinedBand& band,
                    const int8_t* limits, uint8_t* symbols) {
  switch (mode) {
    case BandMode::kSingle:
      return Pack<BandMode::kSingle>(band, limits, symbols);
    case BandMode::kPair:
      return Pack<BandMode::kPair>(band, limits, symbols);
    case BandMode::kQuad:
      return Pack<BandMode::kQuad>(band, limits, symbols);
    case BandMode::kAbsent:
      break;
  }
  return 0;
}

void UnpackBand(BandMode mode, const uint8_t* symbols, int tokens,
                int8_t* values, size_t stride) {
  switch (mode) {
    case BandMode::kAbsent:
      for (int t = 0; t < tokens; ++t, values += stride) {
        std::memset(values, 0, kBandComponents);
      }
      return;
    case BandMode::kSingle:
      return UnpackTokens<UnpackSingle>(symbols, kBandComponents, tokens,
                                        values, stride);
    case BandMode::kPair:
      return UnpackTokens<UnpackPairs>(symbols, kBandComponents / 2, tokens,
                                       values, stride);
    case BandMode::kQuad:
      return UnpackTokens<UnpackQuads>(symbols, kBandComponents / 4, tokens,
                                       values, stride);
  }
}

#if defined(__x86_64__)

namespace {

// Each step takes as many tokens as fill a register with symbols. A byte
// shuffle looks up the middle for every nibble or field of two bits. Every CPU
// with AVX2 has SSSE3.
#define KDN_SSSE3 __attribute__((target("ssse3")))

KDN_SSSE3 inline void Store(__m128i values, int8_t* at) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), values);
}

KDN_SSSE3 void SinglesToMiddles(const uint8_t* symbols, int tokens, int cell,
                                uint8_t shrink, int8_t* values, size_t stride) {
  const __m128i off = _mm_set1_epi8(static_cast<char>(0x80));
  const __m128i shrinks = _mm_set1_epi8(static_cast<char>(shrink));
  for (int t = 0; t < tokens; ++t, symbols += 16, values += stride) {
    const __m128i value = _mm_xor_si128(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols)), off);
    __m128i cells = _mm_add_epi8(_mm_add_epi8(value, value), value);
    if (cell == 9) cells = _mm_add_epi8(_mm_add_epi8(cells, cells), cells);
    Store(_mm_sub_epi8(cells, _mm_sign_epi8(shrinks, value)), values);
  }
}

KDN_SSSE3 void PairsToMiddles(const uint8_t* symbols, int tokens,
                              __m128i middles, int8_t* values, size_t stride) {
  const __m128i nibble = _mm_set1_epi8(15);
  for (int t = 0; t < tokens; t += 2, symbols += 16, values += 2 * stride) {
    const __m128i both =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols));
    const __m128i even = _mm_and_si128(both, nibble);
    const __m128i odd = _mm_and_si128(_mm_srli_epi16(both, 4), nibble);
    Store(_mm_shuffle_epi8(middles, _mm_unpacklo_epi8(even, odd)), values);
    Store(_mm_shuffle_epi8(middles, _mm_unpackhi_epi8(even, odd)),
          values + stride);
  }
}

KDN_SSSE3 void QuadsToMiddles(const uint8_t* symbols, int tokens,
                              __m128i middles, int8_t* values, size_t stride) {
  const __m128i field = _mm_set1_epi8(3);
  for (int t = 0; t < tokens; t += 4, symbols += 16, values += 4 * stride) {
    const __m128i four =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols));
    const __m128i a = _mm_and_si128(four, field);
    const __m128i b = _mm_and_si128(_mm_srli_epi16(four, 2), field);
    const __m128i c = _mm_and_si128(_mm_srli_epi16(four, 4), field);
    const __m128i d = _mm_and_si128(_mm_srli_epi16(four, 6), field);
    const __m128i ab[] = {_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)};
    const __m128i cd[] = {_mm_unpacklo_epi8(c, d), _mm_unpackhi_epi8(c, d)};
    for (int half = 0; half < 2; ++half) {
      int8_t* at = values + 2 * half * stride;
      Store(_mm_shuffle_epi8(middles, _mm_unpacklo_epi16(ab[half], cd[half])),
            at);
      Store(_mm_shuffle_epi8(middles, _mm_unpackhi_epi16(ab[half], cd[half])),
            at + stride);
    }
  }
}

#undef KDN_SSSE3

// The middles of the cells of 16 values, from `least` on.
__m128i MiddlesFrom(int least, int cell, uint8_t shrink) {
  int8_t shrinks[kBandComponents];
  int8_t middles[kBandComponents];
  for (int i = 0; i < kBandComponents; ++i) {
    shrinks[i] = static_cast<int8_t>(shrink);
    middles[i] = static_cast<int8_t>(least + i);
  }
  kernels::ToCellMiddles(shrinks, cell, kBandComponents, middles);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(middles));
}

}  // namespace

#endif

void UnpackToMiddles(BandMode mode, const uint8_t* symbols, int tokens,
                     int cell, uint8_t shrink, int8_t* values, size_t stride,
                     Isa isa) {
  KDN_DCHECK(tokens % kTokenBlock == 0, "whole blocks of tokens");
#if defined(__x86_64__)
  if (isa >= Isa::kAvx2) {
    switch (mode) {
      case BandMode::kSingle:
        return SinglesToMiddles(symbols, tokens, cell, shrink, values, stride);
      case BandMode::kPair:
        return PairsToMiddles(symbols, tokens, MiddlesFrom(-8, cell, shrink),
                              values, stride);
      case BandMode::kQuad:
        return QuadsToMiddles(symbols, tokens, MiddlesFrom(-2, cell, shrink),
                              values, stride);
      case BandMode::kAbsent:
        break;
    }
  }
#endif
  int8_t shrinks[kBandComponents];
  std::memset(shrinks, shrink, sizeof(shrinks));
  UnpackBand(mode, symbols, tokens, values, stride);
  for (int t = 0; t < tokens; ++t, values += stride) {
    kernels::ToCellMiddles(shrinks, cell, kBandComponents, values);
  }
}

}  // namespace kdn::codec
