#ifndef KDN_CODEC_CUDA_HOST_WARP_H_
#define KDN_CODEC_CUDA_HOST_WARP_H_

#include <cstdint>

#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// A warp on one CPU thread, for code that is written over a Warp:
//
//   PerLane<T>          a variable of each lane
//   Each(f)             f(lane), for every lane
//   Ballot(f)           f(lane) of lane L at bit L
//   Shuffle(values, f)  lane L gets values[f(L) % 32]
//   Sync()              what lanes wrote is there for all of them
//   AddToByte(at, x)    *at += x, wrapping around, whoever else adds
//   AddProduct(a, b, sums)
//                       a 16 x 32 times a 32 x 8 matrix of bytes, in the
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
  template <typename F>
  PerLane<uint32_t> Shuffle(const PerLane<uint32_t>& values, const F& f) const {
    PerLane<uint32_t> result;
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      result[lane] = values[f(lane) % kWarpLanes];
    }
    return result;
  }
  void Sync() const {}
  void AddToByte(int8_t* at, int8_t value) const {
    *at = static_cast<int8_t>(*at + value);
  }
  void AddProduct(const PerLane<uint32_t> (&a)[4],
                  const PerLane<uint32_t> (&b)[2],
                  PerLane<int32_t> (&sums)[4]) const {
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      for (int i = 0; i < 4; ++i) {
        // Of the sum: lane / 4 and i say the row, lane % 4 and i the column.
        const int column = lane % 4 * 2 + i % 2;
        for (int quad = 0; quad < 8; ++quad) {
          const int half = quad / 4;
          sums[i][lane] =
              AddProducts(a[i / 2 + 2 * half][lane / 4 * 4 + quad % 4],
                          b[half][column * 4 + quad % 4], sums[i][lane]);
        }
      }
    }
  }
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_HOST_WARP_H_
