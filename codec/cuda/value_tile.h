#ifndef KDN_CODEC_CUDA_VALUE_TILE_H_
#define KDN_CODEC_CUDA_VALUE_TILE_H_

#include "codec/cuda/byte_lanes.h"
#include "codec/cuda/rans_lanes.h"
#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// The values of one stream, which are decoded from symbols and then turned into
// rows. Each token has a row of values. If tokens are of several classes, the
// rows are in the order of a TokenOrder, else in the order of the tokens. The
// layout is [rows / 16][band][16 rows][16 bytes]. So the rows of one band that
// a warp reads or writes at a time lie side by side, and so do all bands of the
// 16 rows that are turned into an engine's rows next.
class ValueTile {
 public:
  static constexpr int kBandStride = kTileTokens * kBandBytes;

  KDN_DEVICE ValueTile(int8_t* values, int bands)
      : values_(values), bands_(bands) {}

  KDN_DEVICE int8_t* At(int row, int band) const {
    return values_ + (row / kTileTokens * bands_ + band) * kBandStride +
           row % kTileTokens * kBandBytes;
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

// The rows of one band of the tile.
struct BandRows {
  int band;
  int begin;  // a multiple of kTokenStep, as is `end`
  int end;
};

// Decodes a band of one level, with kValues values per symbol; see
// codec/transform/symbol_bands.h.
template <int kValues, Pass kPass, typename Warp>
KDN_DEVICE void DecodeBand(const Warp& warp, const BandTables& tables,
                           const BandRows& rows, uint32_t shrinks,
                           const ValueTile& tile, RansLanes<Warp>* coders) {
  static_assert(kValues == 1 || kValues == 2 || kValues == 4);
  constexpr int kLanes = kBandBytes / kValues;  // of one token
  constexpr int kRounds = kTokenStep * kLanes / kWarpLanes;
  static_assert(kRounds <= RansLanes<Warp>::kStepsPerAdvance);
  const auto half_of = [](int lane) { return lane % kLanes / (kLanes / 2); };
  for (int begin = rows.begin; begin < rows.end; begin += kTokenStep) {
    int8_t* values = tile.At(begin, rows.band);
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
KDN_DEVICE void ForBandWords(const Warp& warp, const BandRows& rows,
                             const ValueTile& tile, const F& f) {
  for (int begin = rows.begin; begin < rows.end; begin += kTokenStep) {
    int8_t* values = tile.At(begin, rows.band);
    warp.Each([&](int lane) {
      int8_t* at = values + 4 * lane;
      StoreAligned(at, f(LoadAligned<uint32_t>(at)));
    });
  }
}

// The runs of a stream's classes. `kJoint` says whether the stream is joint:
// others have one run of all rows, and no high parts. That is known when the
// kernel is compiled, which saves registers.
template <bool kJoint>
KDN_DEVICE int RunsOf(const StreamJob& job) {
  return kJoint ? job.runs : 1;
}
template <bool kJoint>
KDN_DEVICE RowRun RunAt(const BatchRef& batch, const StreamJob& job, int run) {
  if constexpr (kJoint) {
    return batch.runs[job.runs_at + static_cast<uint64_t>(run)];
  }
  return {0, job.rows, batch.calibration.transforms[job.transform].bands_at};
}
template <bool kJoint>
KDN_DEVICE int HighBandsOf(const StreamJob& job) {
  return kJoint ? job.used_high : 0;
}

// Decodes the bands of one class of tokens.
template <bool kJoint, Pass kPass, typename Warp>
KDN_DEVICE void DecodeRun(const Warp& warp, const BatchRef& batch,
                          const StreamJob& job, int step, const RowRun& run,
                          const ValueTile& tile, BandTables* tables,
                          RansLanes<Warp>* coders) {
  const CalibrationRef& calibration = batch.calibration;
  const BandRef* bands = calibration.bands + run.bands_at;
  const int bands_count = job.used_bands + HighBandsOf<kJoint>(job);
  for (int i = 0; i < bands_count; ++i) {
    BandRows rows{i, run.first_row, run.first_row + run.rows};
    int coded = i;
    if (kJoint && i >= job.used_bands) {
      const int high = i - job.used_bands;
      rows.band = job.high_bands_at() + high;
      coded = calibration.transforms[job.transform].bands + high;
    }
    const BandRef band = bands[coded * kLevelSteps + step];
    const uint32_t shrinks = InEachByte(band.shrink);
    if (band.mode == 0) {
      if (!warp.is_active()) continue;
      ForBandWords(warp, rows, tile, [shrinks](uint32_t before) {
        return Joined<kPass>(before, 0, shrinks);
      });
      continue;
    }
    tables->Load(warp, calibration, band.tables,
                 job.levels == 1 ? band.middles : band.mode - 1);
    if (!warp.is_active()) continue;
    switch (band.mode) {
      case 1:
        DecodeBand<1, kPass>(warp, *tables, rows, shrinks, tile, coders);
        break;
      case 2:
        DecodeBand<2, kPass>(warp, *tables, rows, shrinks, tile, coders);
        break;
      default:
        DecodeBand<4, kPass>(warp, *tables, rows, shrinks, tile, coders);
    }
  }
}

// The warps of a team have runs of the same classes.
template <bool kJoint, Pass kPass, typename Warp>
KDN_DEVICE void DecodeRuns(const Warp& warp, const BatchRef& batch,
                           const StreamJob& job, int step,
                           const ValueTile& tile, BandTables* tables,
                           RansLanes<Warp>* coders) {
  for (int i = 0; i < RunsOf<kJoint>(job); ++i) {
    DecodeRun<kJoint, kPass>(warp, batch, job, step,
                             RunAt<kJoint>(batch, job, i), tile, tables,
                             coders);
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

// The run of the class that has the row.
template <bool kJoint>
KDN_DEVICE RowRun RunOfRow(const BatchRef& batch, const StreamJob& job,
                           int row) {
  RowRun run = RunAt<kJoint>(batch, job, 0);
  for (int i = 1; i < RunsOf<kJoint>(job); ++i) {
    const RowRun next = RunAt<kJoint>(batch, job, i);
    if (row >= next.first_row) run = next;
  }
  return run;
}

// Adds the patches of a level. They name rows of the tile in place of tokens.
template <bool kJoint, typename Warp>
KDN_DEVICE void AddPatches(const Warp& warp, const BatchRef& batch,
                           const StreamJob& job, int step,
                           const ValueTile& tile) {
  const LevelJob level = job.level(step);
  const auto patch_bytes =
      static_cast<uint64_t>(kJoint ? job.patch_bytes : kPatchBytes);
  const uint64_t begin = level.symbols_at - patch_bytes * level.patches;
  const int cell = step + 1 < job.levels ? 1
                   : step == 0           ? 9
                   : step == 1           ? 3
                                         : 1;
  warp.Each([&](int lane) {
    for (uint32_t i = lane; i < level.patches; i += kWarpLanes) {
      const uint64_t at = begin + patch_bytes * i;
      const int row = LoadU16(batch.bytes, at);
      const int column = patch_bytes == kPatchBytes
                             ? batch.bytes[at + 2]
                             : LoadU16(batch.bytes, at + 2);
      const int band = column / kBandBytes;
      int in_tile = band;
      bool is_used = band < job.used_bands;
      if constexpr (kJoint) {
        const int bands = batch.calibration.transforms[job.transform].bands;
        if (band >= bands) {
          in_tile = job.high_bands_at() + band - bands;
          is_used = band - bands < job.used_high;
        }
      }
      // The host has checked this. It is checked again, because a write depends
      // on it.
      if (row >= job.rows || !is_used) continue;
      const BandRef* run_bands =
          batch.calibration.bands + RunOfRow<kJoint>(batch, job, row).bands_at;
      const int shrink = run_bands[band * kLevelSteps + step].shrink;
      const auto patch = static_cast<int8_t>(batch.bytes[at + patch_bytes - 1]);
      warp.UpdateByte(
          tile.At(row, in_tile) + column % kBandBytes,
          [&](int8_t value) { return Patched(value, patch, cell, shrink); });
    }
  });
}

// The shared memory with which the warps of a team decode values.
struct ValuesRoom {
  SymbolTable tables[2];
  WordRing rings[kTeamWarps];
};

// Clears bands of the tile that no level codes.
template <typename Warp>
KDN_DEVICE void ClearBands(const Warp& warp, const StreamJob& job, int begin,
                           int end, const ValueTile& tile) {
  for (int band = begin; band < end; ++band) {
    ForBandWords(warp, {band, 0, job.rows}, tile, [](uint32_t) { return 0u; });
  }
}

// Decodes and joins all levels; the values are in the finest steps. False when
// a level's symbols are damaged; the values are unusable then. All warps of a
// team take the same path through this function, whatever their streams are.
template <bool kJoint, typename Warp>
KDN_DEVICE bool DecodeValues(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, ValuesRoom* room,
                             const ValueTile& tile) {
  BandTables tables(room->tables);
  bool good = true;
  if (warp.is_active()) {
    ClearBands(warp, job, job.used_bands, job.high_bands_at(), tile);
    if constexpr (kJoint) {
      ClearBands(warp, job, job.high_bands_at() + job.used_high,
                 job.tile_bands(), tile);
    }
  }
  for (int step = 0; step < job.levels; ++step) {
    RansLanes<Warp> coders(warp, batch.bytes, job.level(step),
                           &room->rings[warp.rank()]);
    switch (PassOf(job, step)) {
      case Pass::kFirst:
        DecodeRuns<kJoint, Pass::kFirst>(warp, batch, job, step, tile, &tables,
                                         &coders);
        break;
      case Pass::kRefine:
        DecodeRuns<kJoint, Pass::kRefine>(warp, batch, job, step, tile, &tables,
                                          &coders);
        break;
      case Pass::kRefineLast:
        DecodeRuns<kJoint, Pass::kRefineLast>(warp, batch, job, step, tile,
                                              &tables, &coders);
    }
    good = coders.Finish() && good;
    warp.Sync();
    if (warp.is_active()) AddPatches<kJoint>(warp, batch, job, step, tile);
    warp.Sync();
  }
  return good;
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_VALUE_TILE_H_
