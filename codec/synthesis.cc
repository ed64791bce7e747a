#include "codec/synthesis.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "kv/check.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "codec/amx.h"
#endif

namespace kdn::codec {
namespace {

constexpr int kGroup = 4;   // components side by side
constexpr int kBlock = 16;  // dimensions that a kernel keeps in registers

// One call of Multiply, for the kernels.
struct Product {
  const int8_t* quads;
  const int32_t* offsets;  // of `used` components
  int dims;                // padded
  int used;
  const int8_t* rows;
  int row_stride;
  int tokens;
  int32_t* out;
};

void MultiplyScalar(const Product& p) {
  for (int token = 0; token < p.tokens; ++token) {
    const int8_t* row = p.rows + static_cast<size_t>(token) * p.row_stride;
    int32_t* out = p.out + static_cast<size_t>(token) * p.dims;
    std::fill_n(out, p.dims, 0);
    for (int c = 0; c < p.used; c += kGroup) {
      const int32_t q[kGroup] = {row[c], row[c + 1], row[c + 2], row[c + 3]};
      const int8_t* quad = p.quads + static_cast<size_t>(c) * p.dims;
      for (int d = 0; d < p.dims; ++d, quad += kGroup) {
        out[d] +=
            q[0] * quad[0] + q[1] * quad[1] + q[2] * quad[2] + q[3] * quad[3];
      }
    }
  }
}

#if defined(__x86_64__)

// Sixteen-bit products of neighbouring components; each dimension's two partial
// sums lie side by side and are joined at the end.
__attribute__((target("avx2"))) void MultiplyAvx2(const Product& p) {
  constexpr int kSums = 4;  // registers of 4 dimensions
  for (int token = 0; token < p.tokens; ++token) {
    const int8_t* row = p.rows + static_cast<size_t>(token) * p.row_stride;
    int32_t* out = p.out + static_cast<size_t>(token) * p.dims;
    for (int d = 0; d < p.dims; d += kBlock) {
      __m256i sums[kSums] = {_mm256_setzero_si256(), _mm256_setzero_si256(),
                             _mm256_setzero_si256(), _mm256_setzero_si256()};
      for (int c = 0; c < p.used; c += kGroup) {
        int32_t bytes;
        std::memcpy(&bytes, row + c, sizeof(bytes));
        const __m256i q = _mm256_broadcastq_epi64(
            _mm_cvtepi8_epi16(_mm_cvtsi32_si128(bytes)));
        const int8_t* quad =
            p.quads + (static_cast<size_t>(c) * p.dims + d * kGroup);
        for (int i = 0; i < kSums; ++i) {
          const __m256i m = _mm256_cvtepi8_epi16(_mm_loadu_si128(
              reinterpret_cast<const __m128i*>(quad + i * 4 * kGroup)));
          sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(m, q));
        }
      }
      for (int i = 0; i < kSums; i += 2) {
        // hadd works within 128-bit halves.
        const __m256i joined = _mm256_permute4x64_epi64(
            _mm256_hadd_epi32(sums[i], sums[i + 1]), 0b11011000);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + d + i * 4),
                            joined);
      }
    }
  }
}

// VPDPBUSD takes its left factor unsigned: 128 is added to every value, and
// what that adds to the sums is taken off beforehand.
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void MultiplyVnni(
    const Product& p) {
  constexpr int kTokens = 4;
  constexpr int kUsedMax = 256;
  alignas(64) uint8_t unsigned_rows[kTokens][kUsedMax];
  for (int token = 0; token < p.tokens; token += kTokens) {
    const int count = std::min(kTokens, p.tokens - token);
    for (int t = 0; t < count; ++t) {
      const int8_t* row =
          p.rows + static_cast<size_t>(token + t) * p.row_stride;
      for (int c = 0; c < p.used; ++c) {
        unsigned_rows[t][c] = static_cast<uint8_t>(row[c] ^ 0x80);
      }
    }
    for (int d = 0; d < p.dims; d += kBlock) {
      const __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(),
                                             _mm512_loadu_si512(p.offsets + d));
      __m512i sums[kTokens] = {start, start, start, start};
      const int8_t* quad = p.quads + static_cast<size_t>(d) * kGroup;
      for (int c = 0; c < p.used; c += kGroup) {
        const __m512i m = _mm512_loadu_si512(quad);
        quad += static_cast<size_t>(p.dims) * kGroup;
        for (int t = 0; t < kTokens; ++t) {
          int32_t bytes;
          std::memcpy(&bytes, unsigned_rows[t] + c, sizeof(bytes));
          sums[t] = _mm512_dpbusd_epi32(sums[t], _mm512_set1_epi32(bytes), m);
        }
      }
      for (int t = 0; t < count; ++t) {
        _mm512_storeu_si512(p.out + static_cast<size_t>(token + t) * p.dims + d,
                            sums[t]);
      }
    }
  }
}

// Tiles of 16 tokens by 16 dimensions, 64 components a step: AMX multiplies
// eight times as fast as VNNI.
constexpr int kTileTokens = 16;

__attribute__((target("amx-tile,amx-int8"))) void MultiplyAmx(
    const Product& p) {
  int step = 64;
  while (p.row_stride % step != 0) step -= 16;
  const int used = std::min((p.used + step - 1) / step * step, p.row_stride);
  amx::TileConfig config = amx::TileConfig::Uniform(kTileTokens, 64);
  for (const int tile : {4, 5}) config.Set(tile, kTileTokens, step);  // values
  for (const int tile : {6, 7}) config.Set(tile, step / kGroup, 64);  // matrix
  config.Load();
  const size_t quad_stride = static_cast<size_t>(p.dims) * kGroup;
  const size_t out_stride = static_cast<size_t>(p.dims) * sizeof(int32_t);
  // Two tiles of tokens by two of dimensions, as far as there are two.
  for (int token = 0; token < p.tokens; token += 2 * kTileTokens) {
    const bool two = token + kTileTokens < p.tokens;
    const int8_t* rows = p.rows + static_cast<size_t>(token) * p.row_stride;
    const int8_t* more =
        two ? rows + static_cast<size_t>(kTileTokens) * p.row_stride : rows;
    int32_t* out = p.out + static_cast<size_t>(token) * p.dims;
    int32_t* more_out =
        two ? out + static_cast<size_t>(kTileTokens) * p.dims : out;
    for (int d = 0; d < p.dims; d += 2 * kBlock) {
      const int second = d + kBlock < p.dims ? kBlock : 0;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int c = 0; c < used; c += step) {
        const int8_t* quad =
            p.quads + static_cast<size_t>(c) * p.dims + d * kGroup;
        _tile_loadd(4, rows + c, p.row_stride);
        _tile_loadd(6, quad, quad_stride);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, quad + second * kGroup, quad_stride);
        _tile_dpbssd(1, 4, 7);
        _tile_loadd(5, more + c, p.row_stride);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
      }
      // What there is only once is computed twice, and written where it is.
      _tile_stored(3, more_out + d + second, out_stride);
      _tile_stored(2, more_out + d, out_stride);
      _tile_stored(1, out + d + second, out_stride);
      _tile_stored(0, out + d, out_stride);
    }
  }
  _tile_release();
}

#endif

}  // namespace

SynthesisMatrix::SynthesisMatrix(int dim, int components,
                                 absl::Span<const int8_t> values)
    : dim_(dim), components_(components) {
  KDN_CHECK(
      dim > 0 && components > 0 && components % 16 == 0 && components <= 256,
      "a matrix of bands of 16 components");
  KDN_CHECK(values.size() == static_cast<size_t>(dim) * components,
            "one value per dimension and component");
  const int dims = padded_dim();
  quads_.resize(static_cast<size_t>(components) * dims);
  offsets_.resize(static_cast<size_t>(components / 16 + 1) * dims);
  for (int d = 0; d < dim; ++d) {
    int32_t sum = 0;
    int32_t magnitudes = 0;
    for (int c = 0; c < components; ++c) {
      const int8_t value = values[static_cast<size_t>(d) * components + c];
      quads_[(static_cast<size_t>(c / kGroup) * dims + d) * kGroup +
             c % kGroup] = value;
      sum += value;
      magnitudes += std::abs(value);
      if (c % 16 == 15) {
        offsets_[static_cast<size_t>(c / 16 + 1) * dims + d] = 128 * sum;
      }
    }
    norm_ = std::max(norm_, magnitudes);
  }
}

int8_t SynthesisMatrix::At(int dimension, int component) const {
  return quads_[(static_cast<size_t>(component / kGroup) * padded_dim() +
                 dimension) *
                    kGroup +
                component % kGroup];
}

void SynthesisMatrix::Multiply(const int8_t* rows, int tokens, int used,
                               int32_t* out, Isa isa) const {
  KDN_DCHECK(used >= 0 && used <= components_ && used % 16 == 0,
             "whole bands are used");
  const Product product{
      .quads = quads_.data(),
      .offsets =
          offsets_.data() + static_cast<size_t>(used / 16) * padded_dim(),
      .dims = padded_dim(),
      .used = used,
      .rows = rows,
      .row_stride = components_,
      .tokens = tokens,
      .out = out};
#if defined(__x86_64__)
  // Not every CPU with AVX-512 has VNNI (Skylake-SP).
  static const bool has_vnni = __builtin_cpu_supports("avx512vnni") != 0;
  if (isa == Isa::kAvx512 && tokens % kTileTokens == 0 && amx::IsUsable()) {
    return MultiplyAmx(product);
  }
  if (isa == Isa::kAvx512 && has_vnni) return MultiplyVnni(product);
  if (isa != Isa::kScalar) return MultiplyAvx2(product);
#endif
  MultiplyScalar(product);
}

}  // namespace kdn::codec
