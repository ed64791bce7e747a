#ifndef KDN_CODEC_CUDA_VALUE_TILE_H_
#define KDN_CODEC_CUDA_VALUE_TILE_H_

#include "codec/cuda/byte_lanes.h"
#include "codec/cuda/rans_lanes.h"
#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// The values of one stream, which are decoded from symbols and then turned into
// rows. The layout is [tokens / 16][band][16 tokens][16 bytes]. So the tokens
// of one band that a warp reads or writes at a time lie side by side, and so do
// all bands of the 16 tokens that are turned into rows next.
class ValueTile {
 public:
  static constexpr int kBandStride = kTileTokens * kBandBytes;

  KDN_DEVICE ValueTile(int8_t* values, int bands)
      : values_(values), bands_(bands) {}

  KDN_DEVICE int8_t* At(int token, int band) const {
    return values_ + (token / kTileTokens * bands_ + band) * kBandStride +
           token % kTileTokens * kBandBytes;
  }

 private:
  int8_t* values_;
  int bands_;
};

KDN_DEVICE ValueTile TileOf(const StreamJob& job, int8_t* values) {
  return ValueTile(values, job.tile_bands());
}

// How a level's values are joined to the stream's values.
enum class Pass {
  kFirst,       // they are the first values
  kRefine,      // they refine the values of the levels before
  kRefineLast,  // the same, then values move to the middles of cells
};

KDN_DEVICE Pass PassOf(const StreamJob& job, int step) {
  if (step == 0) return Pass::kFirst;
  const bool moves = step + 1 == job.levels && step + 1 < kLevelSteps;
  return moves ? Pass::kRefineLast : Pass::kRefine;
}

// Joins four values to the four values before. Each byte of `shrinks` is the
// shrink of the band; only kRefineLast uses it. (If the first pass is the last,
// its value tables give middles.)
template <Pass kPass>
KDN_DEVICE uint32_t Joined(uint32_t before, uint32_t values, uint32_t shrinks) {
  if constexpr (kPass == Pass::kFirst) return values;
  values = RefineBytes(before, values);
  return kPass == Pass::kRefine ? values : CellMiddles(values, 3, shrinks);
}

template <int kValues>
KDN_DEVICE uint32_t LoadValues(const int8_t* at) {
  if constexpr (kValues == 1) return static_cast<uint8_t>(*at);
  if constexpr (kValues == 2) return LoadAligned<uint16_t>(at);
  return LoadAligned<uint32_t>(at);
}
template <int kValues>
KDN_DEVICE void StoreValues(uint32_t values, int8_t* at) {
  if constexpr (kValues == 1) {
    *at = static_cast<int8_t>(values);
  } else if constexpr (kValues == 2) {
    StoreAligned(at, static_cast<uint16_t>(values));
  } else {
    StoreAligned(at, values);
  }
}

// Decodes a band of one level, with kValues values per symbol; see
// codec/transform/symbol_bands.h.
template <int kValues, Pass kPass, typename Warp>
KDN_DEVICE void DecodeBand(const Warp& warp, const BandTables& tables, int band,
                           int tokens, uint32_t shrinks, const ValueTile& tile,
                           RansLanes<Warp>* coders) {
  static_assert(kValues == 1 || kValues == 2 || kValues == 4);
  constexpr int kLanes = kBandBytes / kValues;  // of one token
  constexpr int kRounds = kTokenStep * kLanes / kWarpLanes;
  static_assert(kRounds <= RansLanes<Warp>::kStepsPerAdvance);
  const auto half_of = [](int lane) { return lane % kLanes / (kLanes / 2); };
  for (int begin = 0; begin < tokens; begin += kTokenStep) {
    int8_t* values = tile.At(begin, band);
    coders->Advance();
    KDN_UNROLL
    for (int round = 0; round < kRounds; ++round) {
      typename Warp::template PerLane<uint32_t> symbols;
      coders->Step(tables, half_of, &symbols);
      warp.Each([&](int lane) {
        int8_t* at = values + (round * kWarpLanes + lane) * kValues;
        uint32_t before = 0;
        if constexpr (kPass != Pass::kFirst) before = LoadValues<kValues>(at);
        StoreValues<kValues>(Joined<kPass>(before, symbols[lane], shrinks), at);
      });
    }
  }
}

// Replaces every four values of a band, a word, by f(word).
template <typename Warp, typename F>
KDN_DEVICE void ForBandWords(const Warp& warp, int band, int tokens,
                             const ValueTile& tile, const F& f) {
  for (int begin = 0; begin < tokens; begin += kTokenStep) {
    int8_t* values = tile.At(begin, band);
    warp.Each([&](int lane) {
      int8_t* at = values + 4 * lane;
      StoreAligned(at, f(LoadAligned<uint32_t>(at)));
    });
  }
}

template <Pass kPass, typename Warp>
KDN_DEVICE void DecodeBands(const Warp& warp, const BatchRef& batch,
                            const StreamJob& job, int step,
                            const ValueTile& tile, BandTables* tables,
                            RansLanes<Warp>* coders) {
  const int tokens = job.padded_tokens();
  const CalibrationRef& calibration = batch.calibration;
  const BandRef* bands =
      calibration.bands + calibration.transforms[job.transform].bands_at;
  for (int i = 0; i < job.used_bands; ++i) {
    const BandRef band = bands[i * kLevelSteps + step];
    const uint32_t shrinks = InEachByte(band.shrink);
    if (band.mode == 0) {
      if (!warp.is_active()) continue;
      ForBandWords(warp, i, tokens, tile, [shrinks](uint32_t before) {
        return Joined<kPass>(before, 0, shrinks);
      });
      continue;
    }
    tables->Load(warp, calibration, band.tables,
                 job.levels == 1 ? band.middles : band.mode - 1);
    if (!warp.is_active()) continue;
    switch (band.mode) {
      case 1:
        DecodeBand<1, kPass>(warp, *tables, i, tokens, shrinks, tile, coders);
        break;
      case 2:
        DecodeBand<2, kPass>(warp, *tables, i, tokens, shrinks, tile, coders);
        break;
      default:
        DecodeBand<4, kPass>(warp, *tables, i, tokens, shrinks, tile, coders);
    }
  }
}

// The value after a patch. `cell` is 1 where values are not middles of cells.
KDN_DEVICE int8_t Patched(int8_t value, int8_t patch, int cell, int shrink) {
  if (cell == 1) return static_cast<int8_t>(value + patch);
  const int cells =
      value < 0 ? -((shrink - value) / cell) : (value + shrink) / cell;
  return static_cast<int8_t>(
      CellMiddles(static_cast<uint8_t>(cells + patch), cell, shrink));
}

// Adds the patches of a level.
template <typename Warp>
KDN_DEVICE void AddPatches(const Warp& warp, const BatchRef& batch,
                           const StreamJob& job, int step,
                           const ValueTile& tile) {
  constexpr int kPatchBytes = 4;
  const LevelJob level = job.level(step);
  const uint64_t begin =
      level.symbols_at - uint64_t{kPatchBytes} * level.patches;
  const BandRef* bands = batch.calibration.bands +
                         batch.calibration.transforms[job.transform].bands_at;
  const int cell = step + 1 < job.levels ? 1
                   : step == 0           ? 9
                   : step == 1           ? 3
                                         : 1;
  warp.Each([&](int lane) {
    for (uint32_t i = lane; i < level.patches; i += kWarpLanes) {
      const uint64_t at = begin + uint64_t{kPatchBytes} * i;
      const int token = LoadU16(batch.bytes, at);
      const int band = batch.bytes[at + 2] / kBandBytes;
      // The host has checked this. It is checked again, because a write depends
      // on it.
      if (token >= job.tokens || band >= job.used_bands) continue;
      const int shrink = bands[band * kLevelSteps + step].shrink;
      const auto patch = static_cast<int8_t>(batch.bytes[at + 3]);
      warp.UpdateByte(
          tile.At(token, band) + batch.bytes[at + 2] % kBandBytes,
          [&](int8_t value) { return Patched(value, patch, cell, shrink); });
    }
  });
}

// The shared memory with which the warps of a team decode values.
struct ValuesRoom {
  SymbolTable tables[2];
  WordRing rings[kTeamWarps];
};

// Decodes and joins all levels; the values are in the finest steps. False when
// a level's symbols are damaged; the values are unusable then. All warps of a
// team take the same path through this function, whatever their streams are.
template <typename Warp>
KDN_DEVICE bool DecodeValues(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, ValuesRoom* room,
                             const ValueTile& tile) {
  BandTables tables(room->tables);
  bool good = true;
  for (int i = job.used_bands; warp.is_active() && i < job.tile_bands(); ++i) {
    ForBandWords(warp, i, job.padded_tokens(), tile,
                 [](uint32_t) { return 0u; });
  }
  for (int step = 0; step < job.levels; ++step) {
    RansLanes<Warp> coders(warp, batch.bytes, job.level(step),
                           &room->rings[warp.rank()]);
    switch (PassOf(job, step)) {
      case Pass::kFirst:
        DecodeBands<Pass::kFirst>(warp, batch, job, step, tile, &tables,
                                  &coders);
        break;
      case Pass::kRefine:
        DecodeBands<Pass::kRefine>(warp, batch, job, step, tile, &tables,
                                   &coders);
        break;
      case Pass::kRefineLast:
        DecodeBands<Pass::kRefineLast>(warp, batch, job, step, tile, &tables,
                                       &coders);
    }
    good = coders.Finish() && good;
    warp.Sync();
    if (warp.is_active()) AddPatches(warp, batch, job, step, tile);
    warp.Sync();
  }
  return good;
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_VALUE_TILE_H_
