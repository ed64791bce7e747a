#include "codec/transform/analysis.h"

#include <algorithm>
#include <cmath>
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

#include "codec/kernels/amx.h"
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

// The registers hold the sums of eight tokens by one vector of components:
// enough independent sums to hide the latency of two multiply-add units.
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

// bf16 tiles of 16 rows by 32 dimensions, and of 16 components by 32
// dimensions. The tiles of the same rows or components follow each other along
// the dimensions: they lie in memory in the order in which they are multiplied.
constexpr int kTileRows = 16;
constexpr int kTileDims = 32;
constexpr int kTileBytes = 64;  // of a tile's row
constexpr size_t kTileValues = kTileRows * kTileDims;

// Rounds 16 rows to a line of tiles, which has the tiles of all their
// dimensions.
__attribute__((target("avx512f,avx512bf16"))) void RoundToTiles(
    const float* rows, int dim, uint16_t* tiles) {
  for (int row = 0; row < kTileRows; ++row) {
    for (int d = 0; d < dim; d += kTileDims) {
      const float* x = rows + static_cast<size_t>(row) * dim + d;
      const __m512bh both =
          _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
      _mm512_store_si512(tiles + static_cast<size_t>(d) * kTileRows +
                             static_cast<size_t>(row) * kTileDims,
                         reinterpret_cast<__m512i>(both));
    }
  }
}

// Multiplies two lines of rows by two lines of components. Each tile that is
// read serves two products, and no sum waits for another sum.
__attribute__((target("amx-tile,amx-bf16"))) void MultiplyTiles(
    const uint16_t* const matrix[2], const uint16_t* const rows[2], int dim,
    int out_bytes, float* const out[2][2]) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t at = 0; at < static_cast<size_t>(dim) * kTileRows;
       at += kTileValues) {
    _tile_loadd(4, matrix[0] + at, kTileBytes);
    _tile_loadd(6, rows[0] + at, kTileBytes);
    _tile_dpbf16ps(0, 6, 4);
    _tile_loadd(7, rows[1] + at, kTileBytes);
    _tile_dpbf16ps(1, 7, 4);
    _tile_loadd(5, matrix[1] + at, kTileBytes);
    _tile_dpbf16ps(2, 6, 5);
    _tile_dpbf16ps(3, 7, 5);
  }
  _tile_stored(3, out[1][1], out_bytes);
  _tile_stored(2, out[0][1], out_bytes);
  _tile_stored(1, out[1][0], out_bytes);
  _tile_stored(0, out[0][0], out_bytes);
}

// REQUIRES: tokens is a multiple of 16, dim a multiple of 32. Where there is no
// second line of rows or components, the first is computed twice.
__attribute__((target("amx-tile"))) void ApplyAmx(const uint16_t* matrix,
                                                  int dim, int components,
                                                  const float* rows, int tokens,
                                                  float* out) {
  const size_t line = static_cast<size_t>(dim) * kTileRows;
  LineVector<uint16_t> rounded(2 * line);
  const amx::TileConfig config =
      amx::TileConfig::Uniform(kTileRows, kTileBytes);
  config.Load();
  for (int token = 0; token < tokens; token += 2 * kTileRows) {
    const int more = token + kTileRows < tokens ? 1 : 0;
    for (int i = 0; i <= more; ++i) {
      RoundToTiles(rows + (static_cast<size_t>(token) + i * kTileRows) * dim,
                   dim, rounded.data() + i * line);
    }
    const uint16_t* const tiles[2] = {rounded.data(),
                                      rounded.data() + more * line};
    for (int c = 0; c < components; c += 2 * kBlock) {
      const int second = c + kBlock < components ? 1 : 0;
      const uint16_t* const columns[2] = {
          matrix + static_cast<size_t>(c) * dim,
          matrix + static_cast<size_t>(c + second * kBlock) * dim};
      float* const first = out + static_cast<size_t>(token) * components + c;
      float* const next =
          first + static_cast<size_t>(more) * kTileRows * components;
      float* const sums[2][2] = {{first, first + second * kBlock},
                                 {next, next + second * kBlock}};
      MultiplyTiles(columns, tiles, dim,
                    components * static_cast<int>(sizeof(float)), sums);
    }
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
    double sum = 0;
    for (int d = 0; d < dim; ++d) {
      const float value = values[static_cast<size_t>(c) * dim + d];
      by_dim_[static_cast<size_t>(d) * components + c] = value;
      sum += std::fabs(value);
    }
    norm_ = std::max(norm_, sum);
  }
  if (dim % 32 != 0) return;
  // Two dimensions of a component side by side.
  tiles_.resize(values.size());
  for (int c = 0; c < components; ++c) {
    for (int d = 0; d < dim; ++d) {
      const size_t line = static_cast<size_t>(c / kBlock) * kBlock * dim;
      tiles_[line + d / 2 * 2 * kBlock + c % kBlock * 2 + d % 2] =
          FloatToBf16(values[static_cast<size_t>(c) * dim + d]);
    }
  }
}

void AnalysisMatrix::Apply(const float* rows, int tokens, float* out,
                           Isa isa) const {
#if defined(__x86_64__)
  if (isa >= Isa::kAmx && !tiles_.empty() && tokens % kTileRows == 0) {
    return ApplyAmx(tiles_.data(), dim_, components_, rows, tokens, out);
  }
  if (isa >= Isa::kAvx512) {
    return ApplyAvx512(by_dim_.data(), dim_, components_, rows, tokens, out);
  }
  if (isa >= Isa::kAvx2) {
    return ApplyAvx2(by_dim_.data(), dim_, components_, rows, tokens, out);
  }
#endif
  ApplyScalar(by_dim_.data(), dim_, components_, rows, tokens, out);
}

}  // namespace kdn::codec
