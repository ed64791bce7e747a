#ifndef KDN_CODEC_CUDA_DEVICE_H_
#define KDN_CODEC_CUDA_DEVICE_H_

#include <cstdint>
#include <cstring>

// Macros and functions with which the same source is device code under nvcc and
// plain C++ elsewhere. So the decoder of a stream is tested wherever the
// project builds. Needs no CUDA header.

#if defined(__CUDACC__)
#define KDN_DEVICE __device__ __forceinline__
#define KDN_UNROLL _Pragma("unroll")
#define KDN_DO_NOT_UNROLL _Pragma("unroll 1")
#else
#define KDN_DEVICE inline
#define KDN_UNROLL
#define KDN_DO_NOT_UNROLL
#endif

namespace kdn::codec::cuda {

inline constexpr int kWarpLanes = 32;

// Float operations that each round once and are never joined to a fused
// multiply-add, so that rows have the same bits on every machine.
KDN_DEVICE float Times(float a, float b) {
#if defined(__CUDACC__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
KDN_DEVICE float Plus(float a, float b) {
#if defined(__CUDACC__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}
KDN_DEVICE float Minus(float a, float b) { return Plus(a, -b); }

KDN_DEVICE float FloatOf(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
KDN_DEVICE uint32_t BitsOf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}
// The value with which integer sums begin: the bits of the float 1.5 * 2^23. A
// sum s then has the bits of the float 1.5 * 2^23 + s, so that FloatOfSum is a
// subtraction. On a GPU, that is faster than a conversion: a multiprocessor
// converts 16 numbers per cycle. REQUIRES: s is at most 2^22 in magnitude, as
// 256 products of bytes are.
inline constexpr int32_t kNoSum = 0x4b400000;
KDN_DEVICE float FloatOfSum(int32_t sum) {
  return Minus(FloatOf(static_cast<uint32_t>(sum)), 12582912.0f);
}

// For sums of any size, which are rounded.
KDN_DEVICE float FloatOfInt(int32_t sum) {
#if defined(__CUDACC__)
  return __int2float_rn(sum);
#else
  return static_cast<float>(sum);
#endif
}

KDN_DEVICE int CountBits(uint32_t bits) {
#if defined(__CUDACC__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// sum plus the products of the four signed bytes of `a` and of `b`.
KDN_DEVICE int32_t AddProducts(uint32_t a, uint32_t b, int32_t sum) {
#if defined(__CUDACC__)
  return __dp4a(static_cast<int32_t>(a), static_cast<int32_t>(b), sum);
#else
  for (int i = 0; i < 32; i += 8) {
    sum += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  }
  return sum;
#endif
}

// REQUIRES: `at` is aligned to the size of T.
template <typename T>
KDN_DEVICE T LoadAligned(const void* at) {
#if defined(__CUDACC__)
  return *static_cast<const T*>(at);
#else
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
#endif
}
template <typename T>
KDN_DEVICE void StoreAligned(void* at, const T& value) {
#if defined(__CUDACC__)
  *static_cast<T*>(at) = value;
#else
  std::memcpy(at, &value, sizeof(value));
#endif
}

// Two bytes, little-endian, at any address.
KDN_DEVICE uint16_t LoadU16(const uint8_t* bytes, uint64_t at) {
  return static_cast<uint16_t>(bytes[at] | bytes[at + 1] << 8);
}

struct alignas(8) Bytes8 {
  uint32_t words[2];
};
struct alignas(16) Bytes16 {
  uint32_t words[4];
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DEVICE_H_
