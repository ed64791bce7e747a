#ifndef KDN_CODEC_CUDA_HOST_WARP_H_
#define KDN_CODEC_CUDA_HOST_WARP_H_

#include <cstdint>
#include <cstring>

#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// A warp that runs on one CPU thread, and is a team of its own. Code that has a
// Warp as a template parameter uses these calls:
//
//   PerLane<T>          a variable of each lane
//   Each(f)             f(lane), for every lane
//   Ballot(f)           a word with f(lane) at bit `lane`
//   Sync()              all lanes see what lanes of the warp wrote before
//   kTeam, rank()       the number of warps in the team; the index of this one
//   is_active()         whether the warp has a job; if not, it only helps
//   ForTeam<N>(f)       f(i) for every i below N, shared by the team's warps
//   SyncTeam()          all warps see what warps of the team wrote before
//   CopyAsync<N>(from, wanted, to)
//                       starts to copy N bytes, or N zeros unless `wanted`; one
//                       lane calls it
//   EndGroup()          makes a group of the copies since the last EndGroup
//   AwaitAllBut<N>()    waits for all groups of copies except the last N
//   UpdateByte(at, f)   *at = f(*at), atomically
//   AddProduct(a, low, high, c, &sums)
//                       sums = c + a * b for matrices of bytes: a is 16 x 32, b
//                       is 32 x 8, in `low` and `high`; all are laid out as in
//                       PTX's mma.m16n8k32 with .s8 operands
//
// DeviceWarp has the same calls on a GPU. Code between two calls is the same
// for all lanes; code that differs by lane is in the functions that the calls
// take. A lane must not access what another lane writes without a Sync between.
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
        // lane / 4 and i give the row of the sum, lane % 4 and i its column.
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
