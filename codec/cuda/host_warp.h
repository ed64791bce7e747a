#ifndef KDN_CODEC_CUDA_HOST_WARP_H_
#define KDN_CODEC_CUDA_HOST_WARP_H_

#include <cstdint>
#include <cstring>

#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// A warp on one CPU thread, a team of its own, for code that is written over a
// Warp:
//
//   PerLane<T>          a variable of each lane
//   Each(f)             f(lane), for every lane
//   Ballot(f)           f(lane) of lane L at bit L
//   Sync()              what lanes wrote is there for all of them
//   kTeam, rank()       the team's warps, and which of them this is
//   is_active()         it has a job of its own, and does not only help
//   ForTeam<N>(f)       f(i), for every i below N, by the team's warps together
//   SyncTeam()          what warps of the team wrote is there for all of them
//   CopyAsync<N>(from, wanted, to)
//                       for one lane, N bytes or zeros; not there before ...
//   EndGroup()          copies up to here are a group
//   AwaitAllBut<N>()    ... its group is: all but the last N groups
//   UpdateByte(at, f)   *at = f(*at), whoever else does so
//   AddProduct(a, low, high, c, &sums)
//                       c and a 16 x 32 times a 32 x 8 matrix of bytes, in the
//                       registers of PTX's mma.m16n8k32 with .s8 operands
//
// DeviceWarp is the other one. Code between two of these calls is the same for
// all lanes; what differs is in the functions handed to them. Lanes must not
// touch what another lane writes without a Sync between.
class HostWarp {
 public:
  template <typename T>
  class PerLane {
   public:
    T& operator[](int lane) { return values_[lane]; }
    const T& operator[](int lane) const { return values_[lane]; }

   private:
    T values_[kWarpLanes] = {};
  };

  template <typename F>
  void Each(const F& f) const {
    for (int lane = 0; lane < kWarpLanes; ++lane) f(lane);
  }
  template <typename F>
  uint32_t Ballot(const F& f) const {
    uint32_t ballot = 0;
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      if (f(lane)) ballot |= 1u << lane;
    }
    return ballot;
  }
  void Sync() const {}
  static constexpr int kTeam = 1;
  static constexpr int rank() { return 0; }
  static constexpr bool is_active() { return true; }
  template <int kCount, typename F>
  void ForTeam(const F& f) const {
    for (int i = 0; i < kCount; ++i) f(i);
  }
  void SyncTeam() const {}
  template <int kBytes>
  static void CopyAsync(const void* from, bool wanted, void* to) {
    if (wanted) {
      std::memcpy(to, from, kBytes);
    } else {
      std::memset(to, 0, kBytes);
    }
  }
  void EndGroup() const {}
  template <int kGroups>
  void AwaitAllBut() const {}
  template <typename F>
  void UpdateByte(int8_t* at, const F& f) const {
    *at = f(*at);
  }
  void AddProduct(const PerLane<uint32_t> (&a)[4], const PerLane<uint32_t>& low,
                  const PerLane<uint32_t>& high, const PerLane<int32_t> (&c)[4],
                  PerLane<int32_t> (*sums)[4]) const {
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      for (int i = 0; i < 4; ++i) {
        int32_t sum = c[i][lane];
        // Of the sum: lane / 4 and i say the row, lane % 4 and i the column.
        const int column = lane % 4 * 2 + i % 2;
        for (int quad = 0; quad < 8; ++quad) {
          const int half = quad / 4;
          sum =
              AddProducts(a[i / 2 + 2 * half][lane / 4 * 4 + quad % 4],
                          (half == 0 ? low : high)[column * 4 + quad % 4], sum);
        }
        (*sums)[i][lane] = sum;
      }
    }
  }
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_HOST_WARP_H_
