#include "codec/transform/synthesis.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "codec/calibration/calibration.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "codec/kernels/amx.h"
#endif

namespace kdn::codec {
namespace {

constexpr int kGroup = 4;   // components side by side
constexpr int kBlock = 16;  // dimensions that a kernel keeps in registers
constexpr int kDimsMax = kJointDimMax;

// The arguments of a kernel: some tokens of a call of Multiply.
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

// sums += kHighRadix * highs.
inline void AddHighs(const int32_t* highs, int count, int32_t* sums) {
  for (int i = 0; i < count; ++i) sums[i] += kHighRadix * highs[i];
}

void MultiplyScalar(const Product& p) {
  const int dims = p.dims;  // a copy, not read again after every sum
  for (int token = 0; token < p.tokens; ++token) {
    const int8_t* row = p.rows + static_cast<size_t>(token) * p.row_stride;
    int32_t* out = p.out + static_cast<size_t>(token) * dims;
    std::fill_n(out, dims, 0);
    for (int c = 0; c < p.used; c += kGroup) {
      const int32_t q[kGroup] = {row[c], row[c + 1], row[c + 2], row[c + 3]};
      const int8_t* quad = p.quads + static_cast<size_t>(c) * dims;
      for (int d = 0; d < dims; ++d, quad += kGroup) {
        out[d] +=
            q[0] * quad[0] + q[1] * quad[1] + q[2] * quad[2] + q[3] * quad[3];
      }
    }
  }
}

#if defined(__x86_64__)

// Multiplies neighbouring components in 16 bits. The two partial sums of each
// dimension lie side by side and are added at the end.
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

// One factor of VPDPBUSD is unsigned. So 128 is added to every value, and each
// sum begins with minus the amount that this adds.
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void MultiplyVnni(
    const Product& p) {
  constexpr int kTokens = 4;
  constexpr int kUsedMax = kDimsMax;
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

// Multiplies tiles of 16 tokens by 16 dimensions, with up to 64 components per
// step. AMX multiplies eight times as fast as VNNI if it is kept busy: after a
// microsecond without work it takes half a microsecond to wake up, and a
// product takes 50 cycles. Therefore `take` gets the sums of a tile between the
// products of the next tile's tokens.
class TileMultiplier {
 public:
  // `product` has all tokens. The high parts lie from component `components` of
  // a row on, and `used_high` of them are not zero.
  TileMultiplier(const Product& product, int components, int used_high)
      : p_(product), components_(components) {
    const int highs = p_.row_stride - components;
    while (components % step_ != 0 || highs % step_ != 0) step_ -= 16;
    used_ = std::min((p_.used + step_ - 1) / step_ * step_, components);
    used_high_ = std::min((used_high + step_ - 1) / step_ * step_, highs);
  }

  __attribute__((target("amx-tile,amx-int8"))) void Multiply(
      SynthesisMatrix::TakeSums take) {
    amx::TileConfig config = amx::TileConfig::Uniform(kTile, 64);
    config.Set(2, kTile, step_);  // values
    for (const int tile : {3, 4}) config.Set(tile, step_ / kGroup, 64);
    config.Load();
    for (int token = 0; token < p_.tokens; token += kTile) {
      for (int d = 0; d < p_.dims; d += 2 * kBlock) {
        // Where there is no second block, the first is computed twice.
        const int second = std::min(d + kBlock, p_.dims - kBlock);
        Begin(token, d, second);
        if (token > 0) Take(token - kTile, d, d + 2 * kBlock, take);
        End(token, d, second);
      }
    }
    _tile_release();
    if (p_.tokens > 0) {
      Take((p_.tokens - 1) / kTile * kTile, 0, p_.dims, take);
    }
  }

 private:
  static constexpr int kTile = SynthesisMatrix::kTileTokens;

  // The place of the sums of a tile of tokens. The next tile but one uses the
  // same place.
  int32_t* SumsOf(int token) {
    return sums_ + token / kTile % 2 * kTile * kDimsMax;
  }

  // Computes the sums of a tile of tokens for two blocks of dimensions, in the
  // tile registers 0 and 1.
  __attribute__((target("amx-tile,amx-int8"))) void Begin(int token, int first,
                                                          int second) const {
    const int8_t* rows = p_.rows + static_cast<size_t>(token) * p_.row_stride;
    const size_t quad_stride = static_cast<size_t>(p_.dims) * kGroup;
    _tile_zero(0);
    _tile_zero(1);
    for (int c = 0; c < used_; c += step_) {
      const int8_t* quad = p_.quads + static_cast<size_t>(c) * p_.dims;
      _tile_loadd(2, rows + c, p_.row_stride);
      _tile_loadd(3, quad + first * kGroup, quad_stride);
      _tile_dpbssd(0, 2, 3);
      _tile_loadd(4, quad + second * kGroup, quad_stride);
      _tile_dpbssd(1, 2, 4);
    }
    if (used_high_ == 0) return;
    // The sums of the high parts, in the tile registers 5 and 6.
    _tile_zero(5);
    _tile_zero(6);
    for (int c = 0; c < used_high_; c += step_) {
      const int8_t* quad = p_.quads + static_cast<size_t>(c) * p_.dims;
      _tile_loadd(2, rows + components_ + c, p_.row_stride);
      _tile_loadd(3, quad + first * kGroup, quad_stride);
      _tile_dpbssd(5, 2, 3);
      _tile_loadd(4, quad + second * kGroup, quad_stride);
      _tile_dpbssd(6, 2, 4);
    }
  }
  // Stores these sums.
  __attribute__((target("amx-tile"))) void End(int token, int first,
                                               int second) {
    const size_t stride = p_.dims * sizeof(int32_t);
    _tile_stored(1, SumsOf(token) + second, stride);
    _tile_stored(0, SumsOf(token) + first, stride);
    if (used_high_ == 0) return;
    _tile_stored(6, HighsOf(token) + second, stride);
    _tile_stored(5, HighsOf(token) + first, stride);
  }

  // Gives a share of a tile's tokens to `take`: the share that [begin, end) is
  // of the dimensions. Ranges that follow each other give each token once.
  __attribute__((target("avx512f"))) void Take(int first, int begin, int end,
                                               SynthesisMatrix::TakeSums take) {
    const int last =
        std::min(first + kTile * std::min(end, p_.dims) / p_.dims, p_.tokens);
    for (int t = first + kTile * begin / p_.dims; t < last; ++t) {
      const size_t at = static_cast<size_t>(t - first) * p_.dims;
      if (used_high_ > 0) {
        AddHighs(HighsOf(first) + at, p_.dims, SumsOf(first) + at);
      }
      take(t, SumsOf(first) + at);
    }
  }
  int32_t* HighsOf(int token) {
    return highs_ + token / kTile % 2 * kTile * kDimsMax;
  }

  const Product p_;
  int components_;
  int step_ = 64;
  int used_ = 0;
  int used_high_ = 0;
  alignas(kCacheLine) int32_t sums_[2 * kTile * kDimsMax];
  alignas(kCacheLine) int32_t highs_[2 * kTile * kDimsMax];
};

#endif

// The kernel of an instruction set without tiles.
void (*KernelOf(Isa isa))(const Product&) {
#if defined(__x86_64__)
  if (isa >= Isa::kVnni) return MultiplyVnni;
  if (isa >= Isa::kAvx2) return MultiplyAvx2;
#endif
  return MultiplyScalar;
}

}  // namespace

SynthesisMatrix::SynthesisMatrix(int dim, int components,
                                 absl::Span<const int8_t> values)
    : dim_(dim), components_(components) {
  KDN_CHECK(dim > 0 && components > 0 && components % 16 == 0 &&
                components <= kDimsMax,
            "a matrix of bands of 16 components");
  KDN_CHECK(dim <= kDimsMax, "dimensions of a stream");
  KDN_CHECK(values.size() == static_cast<size_t>(dim) * components,
            "one value per dimension and component");
  const int dims = padded_dim();
  quads_.assign(static_cast<size_t>(components) * dims, 0);
  offsets_.assign(static_cast<size_t>(components / 16 + 1) * dims, 0);
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

void SynthesisMatrix::Multiply(const Values& values, int tokens, Isa isa,
                               TakeSums take) const {
  KDN_DCHECK(values.used % 16 == 0 && values.used <= components_ &&
                 values.used_high % 16 == 0 &&
                 values.used_high <= values.stride - components_,
             "whole bands are used");
  const auto product_of = [&](int used) {
    return Product{.quads = quads_.data(),
                   .offsets = offsets_.data() +
                              static_cast<size_t>(used / 16) * padded_dim(),
                   .dims = padded_dim(),
                   .used = used,
                   .rows = values.low,
                   .row_stride = values.stride,
                   .tokens = tokens,
                   .out = nullptr};
  };
  Product low = product_of(values.used);
#if defined(__x86_64__)
  if (isa >= Isa::kAmx) {
    return TileMultiplier(low, components_, values.used_high).Multiply(take);
  }
#endif
  alignas(kCacheLine) int32_t sums[kTileTokens * kDimsMax];
  alignas(kCacheLine) int32_t highs[kTileTokens * kDimsMax];
  Product high = product_of(values.used_high);
  low.out = sums;
  high.out = highs;
  const auto multiply = KernelOf(isa);
  for (int token = 0; token < tokens; token += kTileTokens) {
    const size_t at = static_cast<size_t>(token) * values.stride;
    low.rows = values.low + at;
    low.tokens = std::min(kTileTokens, tokens - token);
    multiply(low);
    if (values.used_high > 0) {
      high.rows = low.rows + components_;
      high.tokens = low.tokens;
      multiply(high);
      AddHighs(highs, low.tokens * low.dims, sums);
    }
    for (int t = 0; t < low.tokens; ++t) {
      take(token + t, sums + static_cast<size_t>(t) * low.dims);
    }
  }
}

}  // namespace kdn::codec
