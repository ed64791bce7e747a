#ifndef KDN_CODEC_CUDA_RANS_LANES_H_
#define KDN_CODEC_CUDA_RANS_LANES_H_

#include "codec/cuda/calibration_ref.h"
#include "codec/cuda/device.h"
#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// The table in which a lane looks up a symbol, with two reads of shared memory.
struct alignas(16) SymbolTable {
  struct alignas(8) Entry {
    uint32_t range;   // start | frequency << 16
    uint32_t values;  // of the symbol; see ValueTable
  };

  uint8_t symbols[4096];  // by slot
  Entry entries[256];     // by symbol
};

// The tables of a band's two halves, in memory that the warps of a team share.
class BandTables {
 public:
  // `room` has room for two tables, which are not loaded yet.
  KDN_DEVICE explicit BandTables(SymbolTable* room) : room_(room) {}

  // Loads the tables unless they are loaded already. All warps of a team call
  // it together. `values` is the index of the value table of both halves.
  template <typename Warp>
  KDN_DEVICE void Load(const Warp& warp, const CalibrationRef& calibration,
                       const uint8_t (&tables)[2], int values) {
    if (tables[0] == held_[0] && tables[1] == held_[1] && values == values_) {
      return;
    }
    held_[0] = tables[0];
    held_[1] = tables[1];
    values_ = values;
    warp.SyncTeam();
    KDN_UNROLL
    for (int half = 0; half < 2; ++half) {
      Fill(warp, calibration.tables[tables[half]], calibration.values[values],
           room_ + half);
    }
    warp.SyncTeam();
  }
  KDN_DEVICE const SymbolTable& Of(int half) const { return room_[half]; }

 private:
  template <typename Warp>
  KDN_DEVICE static void Fill(const Warp& warp, const CoderTable& coder,
                              const ValueTable& values, SymbolTable* table) {
    warp.template ForTeam<sizeof(coder.symbols) / sizeof(Bytes16)>([&](int i) {
      StoreAligned(table->symbols + i * sizeof(Bytes16),
                   LoadAligned<Bytes16>(coder.symbols + i * sizeof(Bytes16)));
    });
    warp.template ForTeam<256 / 2>([&](int i) {
      const auto ranges = LoadAligned<Bytes8>(coder.ranges + 2 * i);
      const auto stands = LoadAligned<Bytes8>(values.values + 2 * i);
      StoreAligned(table->entries + 2 * i,
                   Bytes16{{ranges.words[0], stands.words[0], ranges.words[1],
                            stands.words[1]}});
    });
  }

  SymbolTable* room_;
  int held_[2] = {-1, -1};
  int values_ = -1;
};

// A ring of the words that a warp's coders read. Words are copied in windows of
// 256 bytes, two windows before they are needed. New windows replace the
// windows before the one in use.
struct alignas(16) WordRing {
  uint16_t words[512];
};

// The 32 coders of codec/entropy/rans.h, one per lane.
template <typename Warp>
class RansLanes {
 public:
  template <typename T>
  using PerLane = typename Warp::template PerLane<T>;

  KDN_DEVICE RansLanes(const Warp& warp, const uint8_t* bytes,
                       const LevelJob level, WordRing* ring)
      : warp_(warp),
        words_(bytes + level.symbols_at + kStatesBytes),
        count_(level.words),
        ring_(ring->words) {
    warp_.Each([&](int lane) {
      states_[lane] =
          LoadAligned<uint32_t>(bytes + level.symbols_at + 4 * lane);
    });
    failed_ =
        warp_.Ballot([&](int lane) { return states_[lane] < kLowest; }) != 0;
    // A copy into the ring may still be under way for the level before.
    warp_.template AwaitAllBut<0>();
    FetchAsync(0);
    FetchAsync(kWindow);
    FetchAsync(2 * kWindow);
    warp_.template AwaitAllBut<1>();
  }

  // Fetches words. Call it at least every kStepsPerAdvance steps.
  static constexpr int kStepsPerAdvance = 4;
  KDN_DEVICE void Advance() {
    if (taken_ < window_) return;
    FetchAsync(window_ + 2 * kWindow);
    window_ += kWindow;
    warp_.template AwaitAllBut<1>();
  }

  // Decodes one symbol in every lane; values[lane] has the symbol's values. The
  // lane uses the table of half half_of(lane).
  template <typename HalfOf>
  KDN_DEVICE void Step(const BandTables& tables, const HalfOf& half_of,
                       PerLane<uint32_t>* values) {
    warp_.Each([&](int lane) {
      const SymbolTable& table = tables.Of(half_of(lane));
      const uint32_t slot = states_[lane] & 4095u;
      const auto entry =
          LoadAligned<SymbolTable::Entry>(table.entries + table.symbols[slot]);
      states_[lane] = (entry.range >> 16) * (states_[lane] >> 12) + slot -
                      (entry.range & 0xffffu);
      (*values)[lane] = entry.values;
    });
    Refill();
  }

  // Whether the coders ended as they do when the symbols are undamaged.
  KDN_DEVICE bool Finish() const {
    const uint32_t ended =
        warp_.Ballot([&](int lane) { return states_[lane] == kLowest; });
    return !failed_ && ended == 0xffffffffu && taken_ == count_;
  }

 private:
  static constexpr uint32_t kLowest = 1u << 16;
  static constexpr uint32_t kStatesBytes = 4 * kWarpLanes;
  static constexpr uint32_t kCopied = 4;  // words, by one lane
  static constexpr uint32_t kWindow = kCopied * kWarpLanes;
  static constexpr uint32_t kRing = sizeof(WordRing) / sizeof(uint16_t);
  // Steps read from the window in use and from the next one.
  static_assert(kRing == 4 * kWindow &&
                kStepsPerAdvance * kWarpLanes <= kWindow);

  // Gives the next word to every lane that has too small a state, in the order
  // of the lanes.
  KDN_DEVICE void Refill() {
    const uint32_t hungry =
        warp_.Ballot([&](int lane) { return states_[lane] < kLowest; });
    warp_.Each([&](int lane) {
      if (states_[lane] >= kLowest) return;
      const uint32_t at = taken_ + CountBits(hungry & ((1u << lane) - 1));
      states_[lane] = states_[lane] << 16 | ring_[at % kRing];
    });
    taken_ += CountBits(hungry);
  }

  // Starts to copy the window that begins at `word`. Words past the last one
  // are zeros.
  KDN_DEVICE void FetchAsync(uint32_t word) const {
    warp_.Each([&](int lane) {
      const uint32_t at = word + kCopied * lane;
      Warp::template CopyAsync<2 * kCopied>(
          words_ + (at < count_ ? 2 * uint64_t{at} : 0), at < count_,
          ring_ + at % kRing);
    });
    warp_.EndGroup();
  }

  Warp warp_;
  const uint8_t* words_;
  uint32_t count_;
  uint16_t* ring_;
  bool failed_ = false;
  uint32_t taken_ = 0;
  uint32_t window_ = kWindow;  // the end of the window in use
  PerLane<uint32_t> states_;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_RANS_LANES_H_
