#ifndef KDN_CODEC_CUDA_DEVICE_WARP_CUH_
#define KDN_CODEC_CUDA_DEVICE_WARP_CUH_

#include <cuda_runtime.h>

#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// The warp that runs this; see HostWarp for what the calls mean. REQUIRES: all
// 32 threads of the warp make each call together.
class DeviceWarp {
 public:
  template <typename T>
  class PerLane {
   public:
    KDN_DEVICE T& operator[](int) { return value_; }
    KDN_DEVICE const T& operator[](int) const { return value_; }

   private:
    T value_;
  };

  KDN_DEVICE explicit DeviceWarp(int lane) : lane_(lane) {}

  template <typename F>
  KDN_DEVICE void Each(const F& f) const {
    f(lane_);
  }
  template <typename F>
  KDN_DEVICE uint32_t Ballot(const F& f) const {
    return __ballot_sync(kAll, f(lane_));
  }
  template <typename F>
  KDN_DEVICE PerLane<uint32_t> Shuffle(const PerLane<uint32_t>& values,
                                       const F& f) const {
    PerLane<uint32_t> result;
    result[lane_] = __shfl_sync(kAll, values[lane_], f(lane_));
    return result;
  }
  KDN_DEVICE void Sync() const { __syncwarp(); }
  KDN_DEVICE void AddToByte(int8_t* at, int8_t value) const {
    const auto address = reinterpret_cast<uintptr_t>(at);
    auto* word = reinterpret_cast<uint32_t*>(address & ~uintptr_t{3});
    const int shift = static_cast<int>(address & 3) * 8;
    uint32_t seen = *word;
    uint32_t expected;
    do {
      expected = seen;
      const uint32_t sum = ((expected >> shift) + value) & 0xffu;
      seen = atomicCAS(word, expected,
                       (expected & ~(0xffu << shift)) | sum << shift);
    } while (seen != expected);
  }
  KDN_DEVICE void AddProduct(const PerLane<uint32_t> (&a)[4],
                             const PerLane<uint32_t> (&b)[2],
                             PerLane<int32_t> (&sums)[4]) const {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sums[0][lane_]), "+r"(sums[1][lane_]), "+r"(sums[2][lane_]),
          "+r"(sums[3][lane_])
        : "r"(a[0][lane_]), "r"(a[1][lane_]), "r"(a[2][lane_]),
          "r"(a[3][lane_]), "r"(b[0][lane_]), "r"(b[1][lane_]));
  }

 private:
  static constexpr uint32_t kAll = 0xffffffffu;

  int lane_;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DEVICE_WARP_CUH_
