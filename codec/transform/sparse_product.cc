#include "codec/transform/sparse_product.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>

#include "kv/check.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace kdn::codec::synthesis {
namespace {

#define KDN_AVX2 __attribute__((target("avx2")))
#define KDN_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

// The vectors of a panel. Their sums of 16 and of 32 bits fit the registers of
// AVX2.
constexpr int kVectors = 4;
// The bytes of a pair of components in a panel.
constexpr int PairBytes(Isa isa) {
  return kVectors * (isa == Isa::kAvx2 ? 32 : 64);
}
constexpr int PanelDims(Isa isa) { return PairBytes(isa) / 2; }
// Panels of the largest matrix end with its last dimension.
static_assert(kDimsMax % PanelDims(Isa::kAvx512) == 0);

// A fixed number, so that the CPU predicts the end of the loop over a chunk.
constexpr int kChunkPairs = 8;
// The largest sum of the magnitudes in a pair. The unsigned factor of
// VPMADDUBSW is an entry plus 128, at most 255, and 255 * 128 fits 16 bits.
constexpr int kPairMax = 128;
// The largest sum of the magnitudes in a chunk: 128 * 255 fits 16 bits. The sum
// may wrap around before its last product is added.
constexpr int kChunkMax = 255;

// Some pairs of a token that keep these limits. The values of unused places are
// zeros.
struct Chunk {
  // Each pair of values twice, to fill 32 bits.
  alignas(32) std::array<uint32_t, kChunkPairs> values;
  // The places of the pairs in a panel, in bytes.
  std::array<uint32_t, kChunkPairs> places;
  // What each sum of 16 bits starts with, twice: minus 128 times the sum of the
  // values, because entries of a panel have 128 added.
  uint32_t start;
};

// A pair of components: its number in the upper half, and its two values.
using Entry = uint32_t;

// For each mask of lanes: byte i is the number of the i-th lane in the mask.
constexpr std::array<uint64_t, 256> MakeLanes() {
  std::array<uint64_t, 256> lanes{};
  for (uint32_t mask = 0; mask < 256; ++mask) {
    int count = 0;
    for (uint64_t lane = 0; lane < 8; ++lane) {
      if (mask >> lane & 1) lanes[mask] |= lane << (8 * count++);
    }
  }
  return lanes;
}
constexpr std::array<uint64_t, 256> kLanes = MakeLanes();

// Writes the pairs of a row that are not zero, and returns their number. Writes
// 8 zeros behind them.
KDN_AVX2 int ListPairs(const int8_t* row, int used, Entry* entries) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i numbers = _mm256_setr_epi32(0, 1 << 16, 2 << 16, 3 << 16, 4 << 16,
                                      5 << 16, 6 << 16, 7 << 16);
  int count = 0;
  for (int c = 0; c < used; c += 16) {
    const __m256i pairs = _mm256_cvtepu16_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + c)));
    const int zeros = _mm256_movemask_ps(
        _mm256_castsi256_ps(_mm256_cmpeq_epi32(pairs, zero)));
    const int mask = zeros ^ 0xff;
    const __m256i lanes = _mm256_cvtepu8_epi32(
        _mm_cvtsi64_si128(static_cast<int64_t>(kLanes[mask])));
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(entries + count),
        _mm256_permutevar8x32_epi32(_mm256_or_si256(pairs, numbers), lanes));
    count += std::popcount(static_cast<unsigned>(mask));
    numbers = _mm256_add_epi32(numbers, _mm256_set1_epi32(8 << 16));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(entries + count), zero);
  return count;
}

// Makes a chunk of 8 entries. Returns whether it keeps the limits.
KDN_AVX2 inline bool MakeChunk(const Entry* entries, int pair_bytes,
                               Chunk* chunk) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i entry =
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(entries));
  const __m256i values =
      _mm256_or_si256(_mm256_slli_epi32(entry, 16),
                      _mm256_and_si256(entry, _mm256_set1_epi32(0xffff)));
  _mm256_store_si256(reinterpret_cast<__m256i*>(chunk->values.data()), values);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(chunk->places.data()),
                      _mm256_mullo_epi32(_mm256_srli_epi32(entry, 16),
                                         _mm256_set1_epi32(pair_bytes)));
  const __m256i magnitudes = _mm256_abs_epi8(values);
  const __m256i large =
      _mm256_cmpgt_epi16(_mm256_maddubs_epi16(magnitudes, _mm256_set1_epi8(1)),
                         _mm256_set1_epi16(kPairMax));
  // Each value counts twice. The sums of the magnitudes are in the lower halves
  // of 64 bits, and the sums of the values plus 128 in the upper halves.
  const __m256i sums = _mm256_or_si256(
      _mm256_sad_epu8(magnitudes, zero),
      _mm256_slli_epi64(
          _mm256_sad_epu8(
              _mm256_xor_si256(values,
                               _mm256_set1_epi8(static_cast<char>(0x80))),
              zero),
          32));
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums),
                                    _mm256_extracti128_si256(sums, 1));
  const auto sum = static_cast<uint64_t>(
      _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))));
  const auto doubled = static_cast<uint32_t>(sum >> 32) - 32 * 128;
  const auto start = static_cast<uint16_t>(doubled * (0u - 64u));
  chunk->start = start * 0x10001u;
  return _mm256_testz_si256(large, large) != 0 &&
         static_cast<uint32_t>(sum) <= 2 * kChunkMax;
}

int Magnitudes(Entry entry) {
  return std::abs(static_cast<int8_t>(entry)) +
         std::abs(static_cast<int8_t>(entry >> 8));
}

// Cuts the entries of a chunk that is past the limits into chunks that keep
// them. Returns the end of these chunks.
Chunk* CutAgain(const Entry* entries, int pair_bytes, Chunk* chunks) {
  Entry next[kChunkPairs] = {};
  int size = 0;
  int sum = 0;
  const auto add = [&](Entry entry) {
    const int magnitudes = Magnitudes(entry);
    if (size == kChunkPairs || sum + magnitudes > kChunkMax) {
      MakeChunk(next, pair_bytes, chunks++);
      std::fill_n(next, kChunkPairs, 0);
      size = sum = 0;
    }
    next[size++] = entry;
    sum += magnitudes;
  };
  for (int i = 0; i < kChunkPairs; ++i) {
    const Entry entry = entries[i];
    if (Magnitudes(entry) <= kPairMax) {
      add(entry);
      continue;
    }
    // The halves of a value have the same product as the value.
    const int low = static_cast<int8_t>(entry);
    const int high = static_cast<int8_t>(entry >> 8);
    const auto with_values = [&](int a, int b) {
      return (entry & 0xffff0000u) | static_cast<uint8_t>(b) << 8 |
             static_cast<uint8_t>(a);
    };
    add(with_values(low / 2, high - high / 2));
    add(with_values(low - low / 2, high / 2));
  }
  MakeChunk(next, pair_bytes, chunks++);
  return chunks;
}

// Lists the chunks of a row. Returns their end.
KDN_AVX2 Chunk* Cut(const int8_t* row, int used, int pair_bytes,
                    Chunk* chunks) {
  Entry entries[kDimsMax / 2 + 2 * kChunkPairs];
  const int count = ListPairs(row, used, entries);
  for (int i = 0; i < count; i += kChunkPairs) {
    chunks = MakeChunk(entries + i, pair_bytes, chunks)
                 ? chunks + 1
                 : CutAgain(entries + i, pair_bytes, chunks);
  }
  return chunks;
}

// The most chunks of a token. CutAgain ends a chunk early only where its
// magnitudes and those of the next pair sum to more than kChunkMax, so where
// its own sum to at least kPairMax.
constexpr int ChunksMax(int used) {
  return used + (used / 2 + kChunkPairs - 1) / kChunkPairs * 2;
}

// The chunks of some tokens, few enough for the L2 cache.
struct Chunks {
  static constexpr int kMax = 1024;
  int tokens = 0;
  std::array<const Chunk*, kTileTokens + 1> begin;
  std::array<Chunk, kMax> chunks;
};
// There is always room for one token more than none.
static_assert(ChunksMax(kDimsMax) <= Chunks::kMax);

// Multiplies the chunks of a token by a panel, and stores the sums of the
// panel's dimensions.
KDN_AVX2 void MultiplyAvx2(const uint8_t* panel, const Chunk* begin,
                           const Chunk* end, int32_t* out) {
  const __m256i even = _mm256_set1_epi32(1);
  const __m256i odd = _mm256_set1_epi32(1 << 16);
  __m256i sums[kVectors][2];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    sums[v][0] = sums[v][1] = _mm256_setzero_si256();
  }
  for (const Chunk* chunk = begin; chunk != end; ++chunk) {
    __m256i narrow[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      narrow[v] = _mm256_set1_epi32(static_cast<int>(chunk->start));
    }
    // Without this, GCC reorders the sums of all pairs and runs out of
    // registers.
#pragma GCC unroll 1
    for (int i = 0; i < kChunkPairs; ++i) {
      const auto* matrix =
          reinterpret_cast<const __m256i*>(panel + chunk->places[i]);
      const __m256i pair =
          _mm256_set1_epi32(static_cast<int>(chunk->values[i]));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        narrow[v] = _mm256_add_epi16(
            narrow[v],
            _mm256_maddubs_epi16(_mm256_load_si256(matrix + v), pair));
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[v][0] =
          _mm256_add_epi32(sums[v][0], _mm256_madd_epi16(narrow[v], even));
      sums[v][1] =
          _mm256_add_epi32(sums[v][1], _mm256_madd_epi16(narrow[v], odd));
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16 * v), sums[v][0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16 * v + 8),
                        sums[v][1]);
  }
}

KDN_AVX512 void MultiplyAvx512(const uint8_t* panel, const Chunk* begin,
                               const Chunk* end, int32_t* out) {
  const __m512i even = _mm512_set1_epi32(1);
  const __m512i odd = _mm512_set1_epi32(1 << 16);
  __m512i sums[kVectors][2];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    sums[v][0] = sums[v][1] = _mm512_setzero_si512();
  }
  for (const Chunk* chunk = begin; chunk != end; ++chunk) {
    __m512i narrow[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      narrow[v] = _mm512_set1_epi32(static_cast<int>(chunk->start));
    }
#pragma GCC unroll 1
    for (int i = 0; i < kChunkPairs; ++i) {
      const uint8_t* matrix = panel + chunk->places[i];
      const __m512i pair =
          _mm512_set1_epi32(static_cast<int>(chunk->values[i]));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        narrow[v] = _mm512_add_epi16(
            narrow[v],
            _mm512_maddubs_epi16(_mm512_load_si512(matrix + 64 * v), pair));
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[v][0] =
          _mm512_add_epi32(sums[v][0], _mm512_madd_epi16(narrow[v], even));
      sums[v][1] =
          _mm512_add_epi32(sums[v][1], _mm512_madd_epi16(narrow[v], odd));
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    _mm512_storeu_si512(out + 32 * v, sums[v][0]);
    _mm512_storeu_si512(out + 32 * v + 16, sums[v][1]);
  }
}

// Copies four components of the 8 dimensions at `first` and of those at
// `second` to two pairs of a panel. The sums of `first` are in the even lanes
// of 16 bits.
KDN_AVX2 inline void CopyQuads(const int8_t* first, const int8_t* second,
                               uint8_t* low_pair, uint8_t* high_pair) {
  const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));
  const __m256i a = _mm256_xor_si256(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first)), sign);
  const __m256i b = _mm256_xor_si256(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second)), sign);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(low_pair),
                      _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(high_pair),
                      _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa));
}

// Copies the dimensions from `d` on to a panel of vectors of 2 * kHalf
// dimensions. Dimensions past the last one are zeros.
template <int kHalf>
KDN_AVX2 void CopyPanel(const Blocks& blocks, int d, int pairs,
                        uint8_t* panel) {
  static constexpr int8_t kZeros[kQuadBytes] = {};
  constexpr int kPairBytes = kVectors * kHalf * 4;
  for (int c = 0; c < 2 * pairs; c += kGroup) {
    const auto quad = [&](int dimension) {
      if (dimension >= blocks.dims) return kZeros;
      return blocks.At(dimension / kBlock * kBlock, c) +
             dimension % kBlock * kGroup;
    };
    uint8_t* pair = panel + c / 2 * kPairBytes;
    for (int v = 0; v < kVectors; ++v) {
      const int8_t* first = quad(d + 2 * v * kHalf);
      const int8_t* second = quad(d + (2 * v + 1) * kHalf);
      for (int i = 0; i < kHalf; i += 8, pair += 8 * kGroup) {
        CopyQuads(first + i * kGroup, second + i * kGroup, pair,
                  pair + kPairBytes);
      }
    }
  }
}

}  // namespace

SparseProduct::SparseProduct(const Blocks& blocks, int used, Isa isa)
    : pairs_(used / 2),
      dims_(blocks.dims),
      isa_(isa == Isa::kAvx2 ? Isa::kAvx2 : Isa::kAvx512) {
  const int panel_dims = PanelDims(isa_);
  const size_t panel_bytes = static_cast<size_t>(pairs_) * PairBytes(isa_);
  panels_.resize(panel_bytes * (sums() / panel_dims));
  uint8_t* panel = panels_.data();
  for (int d = 0; d < dims_; d += panel_dims, panel += panel_bytes) {
    if (isa_ == Isa::kAvx2) {
      CopyPanel<8>(blocks, d, pairs_, panel);
    } else {
      CopyPanel<16>(blocks, d, pairs_, panel);
    }
  }
}

int SparseProduct::sums() const {
  const int panel_dims = PanelDims(isa_);
  return (dims_ + panel_dims - 1) / panel_dims * panel_dims;
}

void SparseProduct::Multiply(const Rows& rows) const {
  KDN_DCHECK(rows.used <= 2 * pairs_, "the panels have these components");
  const int pair_bytes = PairBytes(isa_);
  const int panel_dims = PanelDims(isa_);
  const size_t panel_bytes = static_cast<size_t>(pairs_) * pair_bytes;
  const auto multiply = isa_ == Isa::kAvx2 ? MultiplyAvx2 : MultiplyAvx512;
  Chunks list;
  for (int first = 0; first < rows.tokens; first += list.tokens) {
    Chunk* end = list.chunks.data();
    Chunk* const last = end + Chunks::kMax - ChunksMax(rows.used);
    list.tokens = 0;
    while (first + list.tokens < rows.tokens && list.tokens < kTileTokens &&
           end <= last) {
      list.begin[list.tokens] = end;
      end = Cut(rows.At(first + list.tokens), rows.used, pair_bytes, end);
      list.begin[++list.tokens] = end;
    }
    const uint8_t* panel = panels_.data();
    for (int d = 0; d < dims_; d += panel_dims, panel += panel_bytes) {
      for (int t = 0; t < list.tokens; ++t) {
        multiply(panel, list.begin[t], list.begin[t + 1],
                 rows.SumsOf(first + t) + d);
      }
    }
  }
}

}  // namespace kdn::codec::synthesis

#undef KDN_AVX2
#undef KDN_AVX512

#endif
