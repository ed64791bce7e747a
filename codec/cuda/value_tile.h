#ifndef KDN_CODEC_CUDA_VALUE_TILE_H_
#define KDN_CODEC_CUDA_VALUE_TILE_H_

#include "codec/cuda/byte_lanes.h"
#include "codec/cuda/rans_lanes.h"
#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// The values of one stream while its levels are put together: [token][band],
// 16 bytes each, the bands of a token permuted so that eight tokens' worth of
// one band, which is what warps read and write, lies in different banks of
// shared memory.
class ValueTile {
 public:
  KDN_DEVICE ValueTile(int8_t* values, int bands)
      : values_(values),
        bands_(bands),
        shift_(bands % 8 == 0 ? 0 : 1),
        mask_(bands % 8 == 0   ? 7
              : bands % 4 == 0 ? 3
                               : 0) {}

  KDN_DEVICE int8_t* At(int token, int band) const {
    return values_ +
           (token * bands_ + (band ^ ((token >> shift_) & mask_))) * kBandBytes;
  }

 private:
  int8_t* values_;
  int bands_;
  int shift_;
  int mask_;
};

// Decodes what one level codes of a band, kValues to a symbol; see
// codec/symbol_bands.h. Refining, it joins what the levels before gave.
template <int kValues, bool kRefines, typename Warp>
KDN_DEVICE void DecodeBand(const Warp& warp, const TableCache& tables, int band,
                           int tokens, const ValueTile& tile,
                           RansLanes<Warp>* coders) {
  constexpr int kLanes = kBandBytes / kValues;  // of one token
  constexpr int kTokens = kWarpLanes / kLanes;
  const auto half_of = [](int lane) { return lane % kLanes / (kLanes / 2); };
  for (int begin = 0; begin < tokens; begin += kTokens) {
    typename Warp::template PerLane<uint32_t> symbols;
    coders->Step(tables, half_of, &symbols);
    warp.Each([&](int lane) {
      int8_t* at =
          tile.At(begin + lane / kLanes, band) + lane % kLanes * kValues;
      uint32_t values = ValuesOf<kValues>(symbols[lane]);
      if constexpr (kValues == 1) {
        if constexpr (kRefines) {
          values = RefineBytes(static_cast<uint8_t>(*at), values);
        }
        *at = static_cast<int8_t>(values);
      } else if constexpr (kValues == 2) {
        if constexpr (kRefines) {
          values = RefineBytes(LoadAligned<uint16_t>(at), values);
        }
        StoreAligned(at, static_cast<uint16_t>(values));
      } else {
        if constexpr (kRefines) {
          values = RefineBytes(LoadAligned<uint32_t>(at), values);
        }
        StoreAligned(at, values);
      }
    });
  }
}

// word = f(word), for every four values of a band.
template <typename Warp, typename F>
KDN_DEVICE void ForBandWords(const Warp& warp, const ValueTile& tile, int band,
                             int tokens, const F& f) {
  constexpr int kTokens = 8;
  for (int begin = 0; begin < tokens; begin += kTokens) {
    warp.Each([&](int lane) {
      int8_t* at = tile.At(begin + lane / 4, band) + lane % 4 * 4;
      StoreAligned(at, f(LoadAligned<uint32_t>(at)));
    });
  }
}

template <bool kRefines, typename Warp>
KDN_DEVICE void DecodeBands(const Warp& warp, const BatchRef& batch,
                            const StreamJob& job, int step,
                            const ValueTile& tile, TableCache* tables,
                            RansLanes<Warp>* coders) {
  const int tokens = job.padded_tokens();
  const BandRef* bands = batch.calibration.bands +
                         batch.calibration.transforms[job.transform].bands_at;
  for (int i = 0; i < job.used_bands; ++i) {
    const BandRef band = bands[i * kLevelSteps + step];
    if (band.mode == 0) {
      ForBandWords(warp, tile, i, tokens, [](uint32_t values) {
        return kRefines ? TripleBytes(values) : 0u;
      });
      continue;
    }
    tables->Load(warp, batch.calibration.tables, band.tables);
    switch (band.mode) {
      case 1:
        DecodeBand<1, kRefines>(warp, *tables, i, tokens, tile, coders);
        break;
      case 2:
        DecodeBand<2, kRefines>(warp, *tables, i, tokens, tile, coders);
        break;
      default:
        DecodeBand<4, kRefines>(warp, *tables, i, tokens, tile, coders);
    }
  }
}

// Adds the values that the tables have no symbols for.
template <typename Warp>
KDN_DEVICE void AddPatches(const Warp& warp, const BatchRef& batch,
                           const StreamJob& job, const LevelJob& level,
                           const ValueTile& tile) {
  constexpr int kPatchBytes = 4;
  const uint64_t begin =
      level.symbols_at - uint64_t{kPatchBytes} * level.patches;
  warp.Each([&](int lane) {
    for (uint32_t i = lane; i < level.patches; i += kWarpLanes) {
      const uint64_t at = begin + uint64_t{kPatchBytes} * i;
      const int token = LoadU16(batch.bytes, at);
      const int component = batch.bytes[at + 2];
      // The host has looked already; a write must not depend on it.
      if (token >= job.tokens || component >= job.used_bands * kBandBytes) {
        continue;
      }
      warp.AddToByte(
          tile.At(token, component / kBandBytes) + component % kBandBytes,
          static_cast<int8_t>(batch.bytes[at + 3]));
    }
  });
}

// Takes the values of the last level to the middle of what they stand for, in
// the finest steps.
template <typename Warp>
KDN_DEVICE void MoveToMiddles(const Warp& warp, const BatchRef& batch,
                              const StreamJob& job, const ValueTile& tile) {
  const int step = job.levels - 1;
  if (step + 1 == kLevelSteps) return;
  const int cell = step == 0 ? 9 : 3;
  const BandRef* bands = batch.calibration.bands +
                         batch.calibration.transforms[job.transform].bands_at;
  for (int i = 0; i < job.used_bands; ++i) {
    const uint32_t shrinks = InEachByte(bands[i * kLevelSteps + step].shrink);
    ForBandWords(warp, tile, i, job.padded_tokens(), [&](uint32_t values) {
      return CellMiddles(values, cell, shrinks);
    });
  }
}

// Puts all levels together, in the finest steps. False when a level's symbols
// are not what was coded; the values are good for nothing then.
template <typename Warp>
KDN_DEVICE bool DecodeValues(const Warp& warp, const BatchRef& batch,
                             const StreamJob& job, CoderTable* table_room,
                             const ValueTile& tile) {
  TableCache tables(table_room);
  bool good = true;
  for (int i = job.used_bands; i < job.tile_bands(); ++i) {
    ForBandWords(warp, tile, i, job.padded_tokens(),
                 [](uint32_t) { return 0u; });
  }
  for (int step = 0; step < job.levels; ++step) {
    RansLanes<Warp> coders(warp, batch.bytes, job.level(step));
    if (step == 0) {
      DecodeBands<false>(warp, batch, job, step, tile, &tables, &coders);
    } else {
      DecodeBands<true>(warp, batch, job, step, tile, &tables, &coders);
    }
    good = coders.Finish() && good;
    warp.Sync();
    AddPatches(warp, batch, job, job.level(step), tile);
    warp.Sync();
  }
  MoveToMiddles(warp, batch, job, tile);
  warp.Sync();
  return good;
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_VALUE_TILE_H_
