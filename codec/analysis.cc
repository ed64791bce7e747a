#include "codec/analysis.h"

#include <algorithm>
#include <cstddef>

#include "kv/check.h"
#include "kv/dtype.h"
#include "kv/line_vector.h"

#if defined(__x86_64__)
#if !defined(__clang__)
// g++ 12 warns of its own _mm512_undefined_epi32 (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include "codec/amx.h"
#endif

namespace kdn::codec {
namespace {

constexpr int kBlock = 16;  // components

void ApplyScalar(const float* by_dim, int dim, int components,
                 const float* rows, int tokens, float* out) {
  for (int token = 0; token < tokens; ++token) {
    float* y = out + static_cast<size_t>(token) * components;
    std::fill_n(y, components, 0.0f);
    for (int d = 0; d < dim; ++d) {
      const float x = rows[static_cast<size_t>(token) * dim + d];
      const float* column = by_dim + static_cast<size_t>(d) * components;
      for (int c = 0; c < components; ++c) y[c] += x * column[c];
    }
  }
}

#if defined(__x86_64__)

// Eight tokens by sixteen components in registers: enough sums under way to
// hide the latency of two multiply-add units.
constexpr int kTokens = 8;

__attribute__((target("avx512f"))) void ApplyAvx512(const float* by_dim,
                                                    int dim, int components,
                                                    const float* rows,
                                                    int tokens, float* out) {
  for (int token = 0; token < tokens; token += kTokens) {
    const int count = std::min(kTokens, tokens - token);
    const float* x[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      x[t] = rows + static_cast<size_t>(token + std::min(t, count - 1)) * dim;
    }
    for (int c = 0; c < components; c += kBlock) {
      __m512 sums[kTokens];
      for (int t = 0; t < kTokens; ++t) sums[t] = _mm512_setzero_ps();
      for (int d = 0; d < dim; ++d) {
        const __m512 column =
            _mm512_loadu_ps(by_dim + static_cast<size_t>(d) * components + c);
        for (int t = 0; t < kTokens; ++t) {
          sums[t] = _mm512_fmadd_ps(_mm512_set1_ps(x[t][d]), column, sums[t]);
        }
      }
      for (int t = 0; t < count; ++t) {
        _mm512_storeu_ps(out + static_cast<size_t>(token + t) * components + c,
                         sums[t]);
      }
    }
  }
}

__attribute__((target("avx2,fma"))) void ApplyAvx2(const float* by_dim, int dim,
                                                   int components,
                                                   const float* rows,
                                                   int tokens, float* out) {
  constexpr int kHalf = 8;
  for (int token = 0; token < tokens; token += kTokens) {
    const int count = std::min(kTokens, tokens - token);
    const float* x[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      x[t] = rows + static_cast<size_t>(token + std::min(t, count - 1)) * dim;
    }
    for (int c = 0; c < components; c += kHalf) {
      __m256 sums[kTokens];
      for (int t = 0; t < kTokens; ++t) sums[t] = _mm256_setzero_ps();
      for (int d = 0; d < dim; ++d) {
        const __m256 column =
            _mm256_loadu_ps(by_dim + static_cast<size_t>(d) * components + c);
        for (int t = 0; t < kTokens; ++t) {
          sums[t] = _mm256_fmadd_ps(_mm256_set1_ps(x[t][d]), column, sums[t]);
        }
      }
      for (int t = 0; t < count; ++t) {
        _mm256_storeu_ps(out + static_cast<size_t>(token + t) * components + c,
                         sums[t]);
      }
    }
  }
}

// bf16 tiles, 32 dimensions a step. A float is the sum of two bf16 up to one
// part in 2^17; the product of the two smaller parts is left out.
constexpr int kTileRows = 16;
constexpr int kTileDims = 32;

__attribute__((target("avx512f,avx512bw,avx512vl"))) void SplitRow(
    const float* row, int count, uint16_t* high, uint16_t* low) {
  for (int i = 0; i < count; i += 16) {
    const __m512 x = _mm512_loadu_ps(row + i);
    const __m512i upper =
        _mm512_and_si512(_mm512_castps_si512(x),
                         _mm512_set1_epi32(static_cast<int>(0xffff0000)));
    const __m512 rest = _mm512_sub_ps(x, _mm512_castsi512_ps(upper));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(high + i),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(upper, 16)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(low + i),
                        _mm512_cvtepi32_epi16(
                            _mm512_srli_epi32(_mm512_castps_si512(rest), 16)));
  }
}

// One call of ApplyTiles: `rows` of 16 or 32 rows by all components.
struct TileProduct {
  const uint16_t* matrix_high;
  const uint16_t* matrix_low;
  int dim;
  int components;
  const uint16_t* high;
  const uint16_t* low;
  int rows;
  float* out;
};

// Two tiles of rows by two of components, as far as there are two: the matrix,
// which does not fit the first cache, is read once for both, and each sum waits
// for its own last product only. What there is only once is computed twice.
__attribute__((target("amx-tile,amx-bf16"))) void ApplyTiles(
    const TileProduct& p) {
  const int row_bytes = p.dim * 2;
  const int matrix_bytes = p.components * 4;
  const int out_bytes = p.components * static_cast<int>(sizeof(float));
  const int more = p.rows > kTileRows ? kTileRows : 0;
  const uint16_t* more_high = p.high + more * p.dim;
  const uint16_t* more_low = p.low + more * p.dim;
  for (int c = 0; c < p.components; c += 2 * kBlock) {
    const int second = c + kBlock < p.components ? kBlock : 0;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int d = 0; d < p.dim; d += kTileDims) {
      const size_t at = static_cast<size_t>(d) * p.components + 2 * c;
      _tile_loadd(4, p.matrix_high + at, matrix_bytes);
      _tile_loadd(5, p.matrix_high + at + 2 * second, matrix_bytes);
      _tile_loadd(6, p.high + d, row_bytes);
      _tile_dpbf16ps(0, 6, 4);
      _tile_dpbf16ps(1, 6, 5);
      _tile_loadd(7, more_high + d, row_bytes);
      _tile_dpbf16ps(2, 7, 4);
      _tile_dpbf16ps(3, 7, 5);
      _tile_loadd(6, p.low + d, row_bytes);
      _tile_dpbf16ps(0, 6, 4);
      _tile_dpbf16ps(1, 6, 5);
      _tile_loadd(7, more_low + d, row_bytes);
      _tile_dpbf16ps(2, 7, 4);
      _tile_dpbf16ps(3, 7, 5);
      _tile_loadd(4, p.matrix_low + at, matrix_bytes);
      _tile_loadd(5, p.matrix_low + at + 2 * second, matrix_bytes);
      _tile_loadd(6, p.high + d, row_bytes);
      _tile_dpbf16ps(0, 6, 4);
      _tile_dpbf16ps(1, 6, 5);
      _tile_loadd(7, more_high + d, row_bytes);
      _tile_dpbf16ps(2, 7, 4);
      _tile_dpbf16ps(3, 7, 5);
    }
    float* out = p.out + c;
    float* more_out = out + static_cast<size_t>(more) * p.components;
    _tile_stored(3, more_out + second, out_bytes);
    _tile_stored(2, more_out, out_bytes);
    _tile_stored(1, out + second, out_bytes);
    _tile_stored(0, out, out_bytes);
  }
}

// REQUIRES: tokens is a multiple of 16, dim of 32.
__attribute__((target("amx-tile"))) void ApplyAmx(const uint16_t* matrix_high,
                                                  const uint16_t* matrix_low,
                                                  int dim, int components,
                                                  const float* rows, int tokens,
                                                  float* out) {
  constexpr int kRowsMax = 2 * kTileRows;
  LineVector<uint16_t> halves(static_cast<size_t>(2 * kRowsMax) * dim);
  uint16_t* high = halves.data();
  uint16_t* low = high + static_cast<size_t>(kRowsMax) * dim;
  const amx::TileConfig config = amx::TileConfig::Uniform(kTileRows, 64);
  config.Load();
  for (int token = 0; token < tokens; token += kRowsMax) {
    const int count = std::min(kRowsMax, tokens - token);
    SplitRow(rows + static_cast<size_t>(token) * dim, count * dim, high, low);
    ApplyTiles({matrix_high, matrix_low, dim, components, high, low, count,
                out + static_cast<size_t>(token) * components});
  }
  _tile_release();
}

#endif

}  // namespace

AnalysisMatrix::AnalysisMatrix(int components, int dim,
                               absl::Span<const float> values)
    : components_(components), dim_(dim), by_dim_(values.size()) {
  KDN_CHECK(components % kBlock == 0, "whole bands of components");
  KDN_CHECK(values.size() == static_cast<size_t>(components) * dim,
            "one value per component and dimension");
  for (int c = 0; c < components; ++c) {
    for (int d = 0; d < dim; ++d) {
      by_dim_[static_cast<size_t>(d) * components + c] =
          values[static_cast<size_t>(c) * dim + d];
    }
  }
  if (dim % 32 != 0) return;
  // Two dimensions of a component side by side.
  high_.resize(values.size());
  low_.resize(values.size());
  for (int c = 0; c < components; ++c) {
    for (int d = 0; d < dim; ++d) {
      const float value = values[static_cast<size_t>(c) * dim + d];
      const size_t at =
          (static_cast<size_t>(d / 2) * components + c) * 2 + d % 2;
      high_[at] = FloatToBf16(value);
      low_[at] = FloatToBf16(value - Bf16ToFloat(high_[at]));
    }
  }
}

void AnalysisMatrix::Apply(const float* rows, int tokens, float* out,
                           Isa isa) const {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512 && !high_.empty() && tokens % kTileRows == 0 &&
      amx::IsUsable()) {
    return ApplyAmx(high_.data(), low_.data(), dim_, components_, rows, tokens,
                    out);
  }
  if (isa == Isa::kAvx512) {
    return ApplyAvx512(by_dim_.data(), dim_, components_, rows, tokens, out);
  }
  if (isa == Isa::kAvx2) {
    return ApplyAvx2(by_dim_.data(), dim_, components_, rows, tokens, out);
  }
#endif
  ApplyScalar(by_dim_.data(), dim_, components_, rows, tokens, out);
}

}  // namespace kdn::codec
