#include "codec/entropy/rans_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <array>

// Each function is compiled for AVX2, not the whole file: the linker may keep
// this file's copy of an inline function for the whole program, and other CPUs
// would run it.
#define KDN_AVX2 __attribute__((target("avx2")))

namespace kdn::codec::rans {
namespace {

constexpr int kVectors = 4;
constexpr int kWidth = 8;

// For each mask of lanes that take a word: byte L is the number, among the next
// words, of the word that lane L takes.
constexpr std::array<uint64_t, 256> MakePlaces() {
  std::array<uint64_t, 256> places{};
  for (uint32_t mask = 0; mask < 256; ++mask) {
    uint64_t taken = 0;
    for (uint32_t lane = 0; lane < kWidth; ++lane) {
      places[mask] |= taken << (8 * lane);
      taken += mask >> lane & 1;
    }
  }
  return places;
}
constexpr std::array<uint64_t, 256> kPlaces = MakePlaces();

// Element i has all bits set if bit i of `bits` is set, else none.
KDN_AVX2 inline __m256i LanesOf(uint32_t bits) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i chosen =
      _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane);
  return _mm256_cmpeq_epi32(chosen, lane);
}

// Advances 8 states by one symbol each. Returns their table entries, with the
// symbols in the low bytes.
KDN_AVX2 inline __m256i Advance(const uint32_t* table, __m256i offset,
                                __m256i* x) {
  const __m256i low12 = _mm256_set1_epi32(4095);
  const __m256i index = _mm256_add_epi32(_mm256_and_si256(*x, low12), offset);
  const __m256i entry =
      _mm256_i32gather_epi32(reinterpret_cast<const int*>(table), index, 4);
  const __m256i frequency =
      _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(entry, 8), low12),
                       _mm256_set1_epi32(1));
  *x =
      _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(*x, 12)),
                       _mm256_srli_epi32(entry, 20));
  return entry;
}

// Gives words to the states below 2^16. Returns the end of the words taken.
KDN_AVX2 inline const std::byte* Refill(const std::byte* next, __m256i* x) {
  const __m256i takes =
      _mm256_cmpeq_epi32(_mm256_srli_epi32(*x, 16), _mm256_setzero_si256());
  const auto mask =
      static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(takes)));
  const __m256i words = _mm256_cvtepu16_epi32(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(next)));
  const __m256i places = _mm256_cvtepu8_epi32(
      _mm_cvtsi64_si128(static_cast<int64_t>(kPlaces[mask])));
  const __m256i refilled = _mm256_or_si256(
      _mm256_slli_epi32(*x, 16), _mm256_permutevar8x32_epi32(words, places));
  *x = _mm256_blendv_epi8(*x, refilled, takes);
  return next + 2 * __builtin_popcount(mask);
}

// The low bytes of 32 entries, in order.
KDN_AVX2 inline __m256i Symbols(const __m256i* entries) {
  const __m256i low8 = _mm256_set1_epi32(255);
  const __m256i low = _mm256_packus_epi32(_mm256_and_si256(entries[0], low8),
                                          _mm256_and_si256(entries[1], low8));
  const __m256i high = _mm256_packus_epi32(_mm256_and_si256(entries[2], low8),
                                           _mm256_and_si256(entries[3], low8));
  // The pack instructions work on halves of 128 bits; this restores the order.
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high),
                                     _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// The lanes of one stream.
struct Lanes {
  __m256i x[kVectors];
  // Entries from the first table to the lane's table.
  __m256i offset[kVectors];
};

KDN_AVX2 inline Lanes LoadLanes(const DecodeStream& stream) {
  const __m256i distance =
      _mm256_set1_epi32(static_cast<int>(stream.tables.Distance()));
  Lanes lanes;
  for (int i = 0; i < kVectors; ++i) {
    lanes.x[i] = _mm256_loadu_si256(
        reinterpret_cast<const __m256i*>(stream.states + kWidth * i));
    lanes.offset[i] = _mm256_and_si256(
        LanesOf(stream.tables.second_lanes >> (kWidth * i)), distance);
  }
  return lanes;
}

KDN_AVX2 inline void Step(DecodeStream* stream, Lanes* lanes) {
  __m256i entries[kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) {
    entries[i] = Advance(stream->tables.first, lanes->offset[i], &lanes->x[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) {
    stream->next = Refill(stream->next, &lanes->x[i]);
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(stream->out),
                      Symbols(entries));
}

template <int kStreams>
KDN_AVX2 inline size_t Decode(DecodeStream* streams, size_t steps,
                              size_t stride) {
  Lanes lanes[kStreams];
  DecodeStream at[kStreams];
  for (int i = 0; i < kStreams; ++i) {
    at[i] = streams[i];
    lanes[i] = LoadLanes(at[i]);
  }
  size_t step = 0;
  for (; step < steps && HaveWords<kStreams>(at); ++step) {
#pragma GCC unroll 2
    for (int i = 0; i < kStreams; ++i) {
      Step(&at[i], &lanes[i]);
      at[i].out += stride;
    }
  }
  for (int i = 0; i < kStreams; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at[i].states + kWidth * v),
                          lanes[i].x[v]);
    }
    streams[i] = at[i];
  }
  return step;
}

}  // namespace

KDN_AVX2 size_t DecodeOneAvx2(DecodeStream* streams, size_t steps,
                              size_t stride) {
  return Decode<1>(streams, steps, stride);
}

KDN_AVX2 size_t DecodePairAvx2(DecodeStream* streams, size_t steps,
                               size_t stride) {
  return Decode<2>(streams, steps, stride);
}

}  // namespace kdn::codec::rans

#endif  // defined(__x86_64__)
