#include "codec/transform/synthesis_kernels.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kdn::codec::synthesis {

void ScalarProduct::Multiply(const Rows& rows) const {
  for (int token = 0; token < rows.tokens; ++token) {
    const int8_t* row = rows.At(token);
    for (int d = 0; d < blocks_.dims; d += kBlock) {
      int32_t sums[kBlock] = {};
      for (int c = 0; c < rows.used; c += kGroup) {
        const int32_t q[kGroup] = {row[c], row[c + 1], row[c + 2], row[c + 3]};
        if ((q[0] | q[1] | q[2] | q[3]) == 0) continue;
        const int8_t* quad = blocks_.At(d, c);
        // GCC vectorises this loop only if it is not unrolled before.
#pragma GCC unroll 1
        for (int i = 0; i < kBlock; ++i, quad += kGroup) {
          sums[i] +=
              q[0] * quad[0] + q[1] * quad[1] + q[2] * quad[2] + q[3] * quad[3];
        }
      }
      std::copy_n(sums, kBlock, rows.SumsOf(token) + d);
    }
  }
}

#if defined(__x86_64__)

#define KDN_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

namespace {

// A product of VPDPBUSD is ready after five cycles, and two begin in each
// cycle. Sums of four tokens and four blocks keep the multipliers busy.
constexpr int kTokens = 4;
constexpr int kBlocksMax = 4;

// The values plus 128 of some tokens.
struct UnsignedRows {
  alignas(64) uint8_t values[kTokens][kDimsMax];
};

KDN_VNNI void LoadUnsigned(const Rows& rows, int first, UnsignedRows* out) {
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
  for (int t = 0; t < kTokens; ++t) {
    // The last token stands in for tokens past it.
    const int8_t* row = rows.At(std::min(first + t, rows.tokens - 1));
    for (int c = 0; c < rows.used; c += 64) {
      const int left = std::min(rows.used - c, 64);
      const __mmask64 mask = ~uint64_t{0} >> (64 - left);
      _mm512_store_si512(
          out->values[t] + c,
          _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, row + c), sign));
    }
  }
}

// The sums of `kBlocks` blocks from dimension `d` on.
template <int kBlocks>
KDN_VNNI void MultiplyBlocks(const Blocks& blocks, const int32_t* offsets,
                             const UnsignedRows& values, int d, int first,
                             const Rows& rows) {
  __m512i sums[kTokens][kBlocks];
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) {
    const __m512i start = _mm512_sub_epi32(
        _mm512_setzero_si512(), _mm512_loadu_si512(offsets + d + b * kBlock));
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) sums[t][b] = start;
  }
  const int8_t* quad = blocks.At(d, 0);
  const size_t next_block = static_cast<size_t>(blocks.components) * kBlock;
  for (int c = 0; c < rows.used; c += kGroup, quad += kQuadBytes) {
    __m512i q[kTokens];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      int32_t bytes;
      std::memcpy(&bytes, values.values[t] + c, sizeof(bytes));
      q[t] = _mm512_set1_epi32(bytes);
    }
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      const __m512i m = _mm512_loadu_si512(quad + b * next_block);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        sums[t][b] = _mm512_dpbusd_epi32(sums[t][b], q[t], m);
      }
    }
  }
  const int count = std::min(kTokens, rows.tokens - first);
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    if (t >= count) break;
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      _mm512_storeu_si512(rows.SumsOf(first + t) + d + b * kBlock, sums[t][b]);
    }
  }
}

// MultiplyBlocks of the `left` last blocks or of the next four.
auto KernelOf(int left) {
  switch (left) {
    case 1:
      return MultiplyBlocks<1>;
    case 2:
      return MultiplyBlocks<2>;
    case 3:
      return MultiplyBlocks<3>;
    default:
      return MultiplyBlocks<kBlocksMax>;
  }
}

}  // namespace

KDN_VNNI void VnniProduct::Multiply(const Rows& rows) const {
  const int32_t* offsets =
      offsets_ + static_cast<size_t>(rows.used / 16) * blocks_.dims;
  UnsignedRows values[kTileTokens / kTokens];
  for (int t = 0; t < rows.tokens; t += kTokens) {
    LoadUnsigned(rows, t, &values[t / kTokens]);
  }
  for (int d = 0; d < blocks_.dims; d += kBlocksMax * kBlock) {
    const auto multiply = KernelOf((blocks_.dims - d) / kBlock);
    for (int t = 0; t < rows.tokens; t += kTokens) {
      multiply(blocks_, offsets, values[t / kTokens], d, t, rows);
    }
  }
}

#undef KDN_VNNI

#endif

}  // namespace kdn::codec::synthesis
