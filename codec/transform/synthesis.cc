#include "codec/transform/synthesis.h"

#include <algorithm>
#include <cstdlib>

#include "codec/calibration/calibration.h"
#include "codec/transform/sparse_product.h"
#include "codec/transform/synthesis_kernels.h"
#include "kv/check.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "codec/kernels/amx.h"
#endif

namespace kdn::codec {
namespace {

using synthesis::Blocks;
using synthesis::kBlock;
using synthesis::kDimsMax;
using synthesis::kGroup;
using synthesis::Rows;

// sums += kHighRadix * highs.
inline void AddHighs(const int32_t* highs, int count, int32_t* sums) {
  for (int i = 0; i < count; ++i) sums[i] += kHighRadix * highs[i];
}

#if defined(__x86_64__)

// Multiplies tiles of 16 tokens by 16 dimensions, with up to 64 components per
// step. AMX multiplies eight times as fast as VNNI if it is kept busy: after a
// microsecond without work it takes half a microsecond to wake up, and a
// product takes 50 cycles. Therefore `take` gets the sums of a tile between the
// products of the next tile's tokens.
class TileMultiplier {
 public:
  // `rows` has all tokens and no sums. The high parts lie behind a row's
  // components, and `used_high` of them are not zero.
  TileMultiplier(const Blocks& blocks, const Rows& rows, int used_high)
      : blocks_(blocks), rows_(rows) {
    const int components = blocks.components;
    const int highs = rows.stride - components;
    while (components % step_ != 0 || highs % step_ != 0) step_ -= 16;
    used_ = std::min((rows.used + step_ - 1) / step_ * step_, components);
    used_high_ = std::min((used_high + step_ - 1) / step_ * step_, highs);
  }

  __attribute__((target("amx-tile,amx-int8"))) void Multiply(
      SynthesisMatrix::TakeSums take) {
    amx::TileConfig config = amx::TileConfig::Uniform(kTile, 64);
    config.Set(2, kTile, step_);  // values
    for (const int tile : {3, 4}) config.Set(tile, step_ / kGroup, 64);
    config.Load();
    for (int token = 0; token < rows_.tokens; token += kTile) {
      for (int d = 0; d < blocks_.dims; d += 2 * kBlock) {
        // Where there is no second block, the first is computed twice.
        const int second = std::min(d + kBlock, blocks_.dims - kBlock);
        Begin(token, d, second);
        if (token > 0) Take(token - kTile, d, d + 2 * kBlock, take);
        End(token, d, second);
      }
    }
    _tile_release();
    if (rows_.tokens > 0) {
      Take((rows_.tokens - 1) / kTile * kTile, 0, blocks_.dims, take);
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
    const int8_t* row = rows_.At(token);
    _tile_zero(0);
    _tile_zero(1);
    for (int c = 0; c < used_; c += step_) {
      _tile_loadd(2, row + c, rows_.stride);
      _tile_loadd(3, blocks_.At(first, c), synthesis::kQuadBytes);
      _tile_dpbssd(0, 2, 3);
      _tile_loadd(4, blocks_.At(second, c), synthesis::kQuadBytes);
      _tile_dpbssd(1, 2, 4);
    }
    if (used_high_ == 0) return;
    // The sums of the high parts, in the tile registers 5 and 6.
    _tile_zero(5);
    _tile_zero(6);
    for (int c = 0; c < used_high_; c += step_) {
      _tile_loadd(2, row + blocks_.components + c, rows_.stride);
      _tile_loadd(3, blocks_.At(first, c), synthesis::kQuadBytes);
      _tile_dpbssd(5, 2, 3);
      _tile_loadd(4, blocks_.At(second, c), synthesis::kQuadBytes);
      _tile_dpbssd(6, 2, 4);
    }
  }
  // Stores these sums.
  __attribute__((target("amx-tile"))) void End(int token, int first,
                                               int second) {
    const size_t stride = blocks_.dims * sizeof(int32_t);
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
        std::min(first + kTile * std::min(end, blocks_.dims) / blocks_.dims,
                 rows_.tokens);
    for (int t = first + kTile * begin / blocks_.dims; t < last; ++t) {
      const size_t at = static_cast<size_t>(t - first) * blocks_.dims;
      if (used_high_ > 0) {
        AddHighs(HighsOf(first) + at, blocks_.dims, SumsOf(first) + at);
      }
      take(t, SumsOf(first) + at);
    }
  }
  int32_t* HighsOf(int token) {
    return highs_ + token / kTile % 2 * kTile * kDimsMax;
  }

  const Blocks blocks_;
  const Rows rows_;
  int step_ = 64;
  int used_ = 0;
  int used_high_ = 0;
  alignas(kCacheLine) int32_t sums_[2 * kTile * kDimsMax];
  alignas(kCacheLine) int32_t highs_[2 * kTile * kDimsMax];
};

#endif

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
  blocks_.assign(static_cast<size_t>(components) * dims, 0);
  offsets_.assign(static_cast<size_t>(components / 16 + 1) * dims, 0);
  for (int d = 0; d < dim; ++d) {
    int32_t sum = 0;
    int32_t magnitudes = 0;
    for (int c = 0; c < components; ++c) {
      const int8_t value = values[static_cast<size_t>(d) * components + c];
      blocks_[PlaceOf(d, c)] = value;
      sum += value;
      magnitudes += std::abs(value);
      if (c % 16 == 15) {
        offsets_[static_cast<size_t>(c / 16 + 1) * dims + d] = 128 * sum;
      }
    }
    norm_ = std::max(norm_, magnitudes);
  }
}

size_t SynthesisMatrix::PlaceOf(int dimension, int component) const {
  return static_cast<size_t>(dimension / kBlock) * kBlock * components_ +
         (static_cast<size_t>(component / kGroup) * kBlock +
          dimension % kBlock) *
             kGroup +
         component % kGroup;
}

int8_t SynthesisMatrix::At(int dimension, int component) const {
  return blocks_[PlaceOf(dimension, component)];
}

static_assert(SynthesisMatrix::kTileTokens == synthesis::kTileTokens);

template <typename Product>
void SynthesisMatrix::MultiplyBy(const Product& product, const Values& values,
                                 int tokens, TakeSums take) const {
  alignas(kCacheLine) int32_t sums[kTileTokens * kDimsMax];
  alignas(kCacheLine) int32_t highs[kTileTokens * kDimsMax];
  const int stride = product.sums();
  for (int token = 0; token < tokens; token += kTileTokens) {
    Rows rows = {
        .values = values.low + static_cast<size_t>(token) * values.stride,
        .stride = values.stride,
        .used = values.used,
        .tokens = std::min(kTileTokens, tokens - token),
        .sums = sums,
        .sums_stride = stride};
    product.Multiply(rows);
    if (values.used_high > 0) {
      rows.values += components_;
      rows.used = values.used_high;
      rows.sums = highs;
      product.Multiply(rows);
      AddHighs(highs, rows.tokens * stride, sums);
    }
    for (int t = 0; t < rows.tokens; ++t) {
      take(token + t, sums + static_cast<size_t>(t) * stride);
    }
  }
}

void SynthesisMatrix::Multiply(const Values& values, int tokens, Isa isa,
                               TakeSums take) const {
  KDN_DCHECK(values.used % 16 == 0 && values.used <= components_ &&
                 values.used_high % 16 == 0 &&
                 values.used_high <= components_ &&
                 values.used_high <= values.stride - components_,
             "whole bands are used");
  const Blocks blocks = {blocks_.data(), components_, padded_dim()};
#if defined(__x86_64__)
  if (isa >= Isa::kAmx) {
    const Rows rows = {.values = values.low,
                       .stride = values.stride,
                       .used = values.used,
                       .tokens = tokens};
    return TileMultiplier(blocks, rows, values.used_high).Multiply(take);
  }
  if (isa >= Isa::kVnni) {
    return MultiplyBy(synthesis::VnniProduct(blocks, offsets_.data()), values,
                      tokens, take);
  }
  if (isa >= Isa::kAvx2) {
    const int used = std::max(values.used, values.used_high);
    return MultiplyBy(synthesis::SparseProduct(blocks, used, isa), values,
                      tokens, take);
  }
#endif
  MultiplyBy(synthesis::ScalarProduct(blocks), values, tokens, take);
}

}  // namespace kdn::codec
