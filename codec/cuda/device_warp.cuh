#ifndef KDN_CODEC_CUDA_DEVICE_WARP_CUH_
#define KDN_CODEC_CUDA_DEVICE_WARP_CUH_

#include <cuda_runtime.h>

#include "codec/cuda/device.h"

namespace kdn::codec::cuda {

// The warp that runs this code; HostWarp documents the calls. REQUIRES: all 32
// threads of the warp make each call together, and all warps of a thread block
// make the calls for teams together.
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

  static constexpr int kTeam = kTeamWarps;

  // The first `jobs` warps of the thread block have a job.
  KDN_DEVICE DeviceWarp(int thread, int jobs)
      : lane_(thread % kWarpLanes),
        rank_(thread / kWarpLanes),
        is_active_(rank_ < jobs) {}

  template <typename F>
  KDN_DEVICE void Each(const F& f) const {
    f(lane_);
  }
  template <typename F>
  KDN_DEVICE uint32_t Ballot(const F& f) const {
    return __ballot_sync(kAll, f(lane_));
  }
  KDN_DEVICE void Sync() const { __syncwarp(); }
  KDN_DEVICE int rank() const { return rank_; }
  KDN_DEVICE bool is_active() const { return is_active_; }
  template <int kCount, typename F>
  KDN_DEVICE void ForTeam(const F& f) const {
    constexpr int kThreads = kTeam * kWarpLanes;
    const int thread = rank_ * kWarpLanes + lane_;
    KDN_UNROLL
    for (int i = 0; i < kCount; i += kThreads) {
      if (kCount % kThreads == 0 || i + thread < kCount) f(i + thread);
    }
  }
  KDN_DEVICE void SyncTeam() const { __syncthreads(); }
  template <int kBytes>
  KDN_DEVICE static void CopyAsync(const void* from, bool wanted, void* to) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :
                 : "r"(shared), "l"(from), "n"(kBytes), "r"(wanted ? kBytes : 0)
                 : "memory");
  }
  KDN_DEVICE void EndGroup() const {
    asm volatile("cp.async.commit_group;" : : : "memory");
  }
  template <int kGroups>
  KDN_DEVICE void AwaitAllBut() const {
    asm volatile("cp.async.wait_group %0;" : : "n"(kGroups) : "memory");
    __syncwarp();
  }
  template <typename F>
  KDN_DEVICE void UpdateByte(int8_t* at, const F& f) const {
    const auto address = reinterpret_cast<uintptr_t>(at);
    auto* word = reinterpret_cast<uint32_t*>(address & ~uintptr_t{3});
    const int shift = static_cast<int>(address & 3) * 8;
    uint32_t seen = *word;
    uint32_t expected;
    do {
      expected = seen;
      const auto byte =
          static_cast<uint8_t>(f(static_cast<int8_t>(expected >> shift)));
      seen =
          atomicCAS(word, expected,
                    (expected & ~(0xffu << shift)) | uint32_t{byte} << shift);
    } while (seen != expected);
  }
  KDN_DEVICE void AddProduct(const PerLane<uint32_t> (&a)[4],
                             const PerLane<uint32_t>& low,
                             const PerLane<uint32_t>& high,
                             const PerLane<int32_t> (&c)[4],
                             PerLane<int32_t> (*sums)[4]) const {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=r"((*sums)[0][lane_]), "=r"((*sums)[1][lane_]),
          "=r"((*sums)[2][lane_]), "=r"((*sums)[3][lane_])
        : "r"(a[0][lane_]), "r"(a[1][lane_]), "r"(a[2][lane_]),
          "r"(a[3][lane_]), "r"(low[lane_]), "r"(high[lane_]), "r"(c[0][lane_]),
          "r"(c[1][lane_]), "r"(c[2][lane_]), "r"(c[3][lane_]));
  }

 private:
  static constexpr uint32_t kAll = 0xffffffffu;

  int lane_;
  int rank_;
  bool is_active_;
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DEVICE_WARP_CUH_
