#ifndef KDN_CODEC_CUDA_RANS_LANES_H_
#define KDN_CODEC_CUDA_RANS_LANES_H_

#include "codec/cuda/calibration_ref.h"
#include "codec/cuda/device.h"
#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// The tables that a warp decodes with, in its shared memory.
class TableCache {
 public:
  // `room` is for two tables; it holds none yet.
  KDN_DEVICE explicit TableCache(CoderTable* room) : room_(room) {}

  // Makes tables[half] ready for half 0 and 1 of a band.
  template <typename Warp>
  KDN_DEVICE void Load(const Warp& warp, const CoderTable* from,
                       const uint8_t (&tables)[2]) {
    const int first = tables[0];
    const int second = tables[1];
    if (first == second) {
      slots_[0] = slots_[1] = held_[1] == first ? 1 : 0;
    } else {
      slots_[0] = held_[0] == second || held_[1] == first ? 1 : 0;
      slots_[1] = 1 - slots_[0];
    }
    Fill(warp, from, slots_[0], first);
    Fill(warp, from, slots_[1], second);
  }
  KDN_DEVICE const CoderTable& Of(int half) const {
    return room_[half == 0 ? slots_[0] : slots_[1]];
  }

 private:
  template <typename Warp>
  KDN_DEVICE void Fill(const Warp& warp, const CoderTable* from, int slot,
                       int table) {
    if (table == (slot == 0 ? held_[0] : held_[1])) return;
    held_[0] = slot == 0 ? table : held_[0];
    held_[1] = slot == 0 ? held_[1] : table;
    const auto* source = reinterpret_cast<const uint8_t*>(from + table);
    auto* room = reinterpret_cast<uint8_t*>(room_ + slot);
    warp.Sync();
    warp.Each([&](int lane) {
      constexpr int kStride = kWarpLanes * sizeof(Bytes16);
      KDN_UNROLL
      for (int i = 0; i < static_cast<int>(sizeof(CoderTable)); i += kStride) {
        const int at = i + lane * static_cast<int>(sizeof(Bytes16));
        StoreAligned(room + at, LoadAligned<Bytes16>(source + at));
      }
    });
    warp.Sync();
  }

  CoderTable* room_;
  int held_[2] = {-1, -1};
  int slots_[2] = {0, 0};
};

// The 32 coders of codec/rans.h, one a lane. Words come from memory 64 at a
// time, well before they are needed, and are handed round in registers.
template <typename Warp>
class RansLanes {
 public:
  template <typename T>
  using PerLane = typename Warp::template PerLane<T>;

  KDN_DEVICE RansLanes(const Warp& warp, const uint8_t* bytes,
                       const LevelJob& level)
      : warp_(warp),
        bytes_(bytes),
        words_at_(level.symbols_at + kStatesBytes),
        words_(level.words) {
    warp_.Each([&](int lane) {
      states_[lane] = LoadU32(bytes, level.symbols_at + 4 * lane);
    });
    failed_ =
        warp_.Ballot([&](int lane) { return states_[lane] < kLowest; }) != 0;
    now_ = Joined(Load(0));
    next_ = Load(kWindow);
  }

  // Takes one symbol from every lane. `half_of` says which of the tables a lane
  // uses.
  template <typename HalfOf>
  KDN_DEVICE void Step(const TableCache& tables, const HalfOf& half_of,
                       PerLane<uint32_t>* symbols) {
    warp_.Each([&](int lane) {
      const CoderTable& table = tables.Of(half_of(lane));
      const uint32_t slot = states_[lane] & 4095u;
      const uint32_t symbol = table.symbols[slot];
      const uint32_t range = table.ranges[symbol];
      states_[lane] =
          (range >> 16) * (states_[lane] >> 12) + slot - (range & 0xffffu);
      (*symbols)[lane] = symbol;
    });
    Refill();
  }

  // Whether what was decoded is exactly what was coded.
  KDN_DEVICE bool Finish() const {
    const uint32_t ended =
        warp_.Ballot([&](int lane) { return states_[lane] == kLowest; });
    return !failed_ && ended == 0xffffffffu && begin_ + taken_ == words_;
  }

 private:
  static constexpr uint32_t kLowest = 1u << 16;
  static constexpr uint32_t kStatesBytes = 4 * kWarpLanes;
  static constexpr uint32_t kWindow = 2 * kWarpLanes;

  // Two words for each lane; behind the last there are zeros.
  KDN_DEVICE PerLane<UnjoinedWord> Load(uint32_t word) const {
    PerLane<UnjoinedWord> pairs;
    warp_.Each([&](int lane) {
      const uint32_t at = word + 2 * lane;
      pairs[lane] = {0, 0};
      if (at < words_) {
        pairs[lane] = LoadUnjoined(bytes_, words_at_ + 2 * uint64_t{at});
      }
    });
    return pairs;
  }
  KDN_DEVICE PerLane<uint32_t> Joined(
      const PerLane<UnjoinedWord>& pairs) const {
    PerLane<uint32_t> joined;
    warp_.Each([&](int lane) { joined[lane] = Join(pairs[lane], words_at_); });
    return joined;
  }

  // Every lane whose state has become too small takes the next word.
  KDN_DEVICE void Refill() {
    const uint32_t hungry =
        warp_.Ballot([&](int lane) { return states_[lane] < kLowest; });
    const auto word_of = [&](int lane) {
      return taken_ + CountBits(hungry & ((1u << lane) - 1));
    };
    const auto pair_of = [&](int lane) {
      return static_cast<int>(word_of(lane) / 2 % kWarpLanes);
    };
    const uint32_t taken = taken_ + CountBits(hungry);
    PerLane<uint32_t> pairs = warp_.Shuffle(now_, pair_of);
    if (taken > kWindow) {
      const PerLane<uint32_t> behind = warp_.Shuffle(Joined(next_), pair_of);
      warp_.Each([&](int lane) {
        if (word_of(lane) >= kWindow) pairs[lane] = behind[lane];
      });
    }
    warp_.Each([&](int lane) {
      if ((hungry >> lane & 1u) == 0) return;
      const uint32_t word =
          word_of(lane) % 2 == 0 ? pairs[lane] & 0xffffu : pairs[lane] >> 16;
      states_[lane] = states_[lane] << 16 | word;
    });
    taken_ = taken;
    if (taken_ >= kWindow) Advance();
  }

  KDN_DEVICE void Advance() {
    begin_ += kWindow;
    taken_ -= kWindow;
    now_ = Joined(next_);
    // Past the last word a stream is lost; how far does not matter.
    failed_ |= begin_ > words_;
    next_ = Load(begin_ + kWindow);
  }

  Warp warp_;
  const uint8_t* bytes_;
  uint64_t words_at_;
  uint32_t words_;
  bool failed_ = false;
  // The window: word `begin_` is the first of now_; `taken_` are gone of it.
  uint32_t begin_ = 0;
  uint32_t taken_ = 0;
  PerLane<uint32_t> states_;
  PerLane<uint32_t> now_;
  PerLane<UnjoinedWord> next_;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_RANS_LANES_H_
