#include "codec/entropy/rans_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "kv/check.h"

#if !defined(__clang__)
// g++ 12 warns about its own _mm512_undefined_epi32 (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

// An attribute of each function and not of the file, for the reason given in
// rans_avx2.cc.
#define KDN_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

namespace kdn::codec::rans {
namespace {

constexpr int kWidth = 16;

// 16 lanes: one of the two vectors of a step.
struct Half {
  __m512i x;
  // Entries from the first table to the lane's table.
  __m512i offset;
};

KDN_AVX512 inline Half LoadHalf(const EntryTables& tables,
                                const uint32_t* states, int first_lane) {
  const auto second = static_cast<__mmask16>(tables.second_lanes >> first_lane);
  return {_mm512_loadu_si512(states + first_lane),
          _mm512_maskz_set1_epi32(second, static_cast<int>(tables.Distance()))};
}

// Advances 16 states by one symbol each and writes the symbols.
KDN_AVX512 inline void Advance(const uint32_t* table, Half* half,
                               uint8_t* out) {
  const __m512i low12 = _mm512_set1_epi32(4095);
  const __m512i index =
      _mm512_add_epi32(_mm512_and_si512(half->x, low12), half->offset);
  const __m512i entry = _mm512_i32gather_epi32(index, table, 4);
  const __m512i frequency =
      _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(entry, 8), low12),
                       _mm512_set1_epi32(1));
  half->x = _mm512_add_epi32(
      _mm512_mullo_epi32(frequency, _mm512_srli_epi32(half->x, 12)),
      _mm512_srli_epi32(entry, 20));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm512_cvtepi32_epi8(entry));
}

// Gives words to the states below 2^16. Returns the end of the words taken.
KDN_AVX512 inline const std::byte* Refill(const std::byte* next, __m512i* x) {
  const __mmask16 takes =
      _mm512_cmplt_epu32_mask(*x, _mm512_set1_epi32(1 << 16));
  const __m512i words = _mm512_cvtepu16_epi32(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(next)));
  *x = _mm512_mask_or_epi32(*x, takes, _mm512_slli_epi32(*x, 16),
                            _mm512_maskz_expand_epi32(takes, words));
  return next + 2 * __builtin_popcount(takes);
}

// Writes the low words of the states that are too large for a symbol of
// `frequency` downwards from `end`, and shifts these states. Returns the
// address of the lowest word.
KDN_AVX512 inline std::byte* GiveWords(__m512i frequency, __m512i* x,
                                       std::byte* end) {
  const __mmask16 gives =
      _mm512_cmpge_epu32_mask(_mm512_srli_epi32(*x, 20), frequency);
  const int count = __builtin_popcount(gives);
  end -= 2 * count;
  const __m256i words =
      _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(gives, *x));
  _mm256_mask_storeu_epi16(end, static_cast<__mmask16>((1u << count) - 1),
                           words);
  *x = _mm512_mask_srli_epi32(*x, gives, *x, 16);
  return end;
}

// Integer division by way of floats. The quotient is below 2^20, so a float
// division that always rounds down gives the quotient or one less.
KDN_AVX512 inline __m512i Divide(__m512i x, __m512i frequency) {
  constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 approximate = _mm512_div_round_ps(
      _mm512_cvt_roundepu32_ps(x, kDown), _mm512_cvtepi32_ps(frequency), kDown);
  const __m512i quotient = _mm512_cvttps_epu32(approximate);
  const __m512i rest =
      _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, frequency));
  return _mm512_mask_add_epi32(quotient,
                               _mm512_cmpge_epu32_mask(rest, frequency),
                               quotient, _mm512_set1_epi32(1));
}

KDN_AVX512 inline std::byte* Encode(const uint32_t* table,
                                    const uint8_t* symbols, Half* half,
                                    std::byte* end) {
  const __m512i symbol = _mm512_cvtepu8_epi32(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols)));
  const __m512i entry =
      _mm512_i32gather_epi32(_mm512_add_epi32(symbol, half->offset), table, 4);
  const __m512i frequency = _mm512_srli_epi32(entry, 16);
  KDN_CHECK(_mm512_testn_epi32_mask(frequency, frequency) == 0,
            "a symbol without frequency");
  end = GiveWords(frequency, &half->x, end);
  // x / f * 4096 + x % f + start.
  const __m512i start = _mm512_and_si512(entry, _mm512_set1_epi32(0xffff));
  const __m512i rest = _mm512_sub_epi32(_mm512_set1_epi32(4096), frequency);
  half->x =
      _mm512_add_epi32(_mm512_add_epi32(half->x, start),
                       _mm512_mullo_epi32(Divide(half->x, frequency), rest));
  return end;
}

template <int kStreams>
KDN_AVX512 inline size_t Decode(DecodeStream* streams, size_t steps,
                                size_t stride) {
  Half low[kStreams];
  Half high[kStreams];
  DecodeStream at[kStreams];
  for (int i = 0; i < kStreams; ++i) {
    at[i] = streams[i];
    low[i] = LoadHalf(at[i].tables, at[i].states, 0);
    high[i] = LoadHalf(at[i].tables, at[i].states, kWidth);
  }
  size_t step = 0;
  for (; step < steps && HaveWords<kStreams>(at); ++step) {
#pragma GCC unroll 2
    for (int i = 0; i < kStreams; ++i) {
      Advance(at[i].tables.first, &low[i], at[i].out);
      Advance(at[i].tables.first, &high[i], at[i].out + kWidth);
      at[i].out += stride;
    }
#pragma GCC unroll 2
    for (int i = 0; i < kStreams; ++i) {
      at[i].next = Refill(at[i].next, &low[i].x);
      at[i].next = Refill(at[i].next, &high[i].x);
    }
  }
  for (int i = 0; i < kStreams; ++i) {
    _mm512_storeu_si512(at[i].states, low[i].x);
    _mm512_storeu_si512(at[i].states + kWidth, high[i].x);
    streams[i] = at[i];
  }
  return step;
}

}  // namespace

KDN_AVX512 size_t DecodeOneAvx512(DecodeStream* streams, size_t steps,
                                  size_t stride) {
  return Decode<1>(streams, steps, stride);
}

KDN_AVX512 size_t DecodePairAvx512(DecodeStream* streams, size_t steps,
                                   size_t stride) {
  return Decode<2>(streams, steps, stride);
}

KDN_AVX512 std::byte* EncodeStepsAvx512(const EntryTables& tables, size_t steps,
                                        const uint8_t* symbols,
                                        uint32_t* states, std::byte* end) {
  Half low = LoadHalf(tables, states, 0);
  Half high = LoadHalf(tables, states, kWidth);
  for (size_t step = steps; step-- > 0;) {
    const uint8_t* const first = symbols + step * (2 * kWidth);
    end = Encode(tables.first, first + kWidth, &high, end);
    end = Encode(tables.first, first, &low, end);
  }
  _mm512_storeu_si512(states, low.x);
  _mm512_storeu_si512(states + kWidth, high.x);
  return end;
}

}  // namespace kdn::codec::rans

#endif  // defined(__x86_64__)
