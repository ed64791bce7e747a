#ifndef KDN_CODEC_CUDA_DEVICE_H_
#define KDN_CODEC_CUDA_DEVICE_H_

#include <cstdint>
#include <cstring>

// What lets one source be a device function under nvcc and plain C++ elsewhere:
// the decoder of a stream is tested wherever the project builds, on GPUs it is
// the same text. No CUDA header is needed for it.

#if defined(__CUDACC__)
#define KDN_DEVICE __device__ __forceinline__
#define KDN_UNROLL _Pragma("unroll")
#else
#define KDN_DEVICE inline
#define KDN_UNROLL
#endif

namespace kdn::codec::cuda {

inline constexpr int kWarpLanes = 32;

// Float operations that round once each, never joined to a fused multiply-add:
// rows must not tell which machine decoded them.
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
// Exact. Twice as fast on a GPU as a conversion, of which a multiprocessor does
// 16 a cycle. REQUIRES: |sum| is at most 2^22, as 256 products of bytes are.
KDN_DEVICE float FloatOfSum(int32_t sum) {
  return Minus(FloatOf(0x4b400000u + static_cast<uint32_t>(sum)), 12582912.0f);
}

KDN_DEVICE int CountBits(uint32_t bits) {
#if defined(__CUDACC__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// sum plus the products of four signed bytes each.
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

// REQUIRES: aligned to its size.
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

// Streams begin anywhere. `bytes` is aligned to 4, and readable 8 bytes past
// what is asked for.
KDN_DEVICE uint16_t LoadU16(const uint8_t* bytes, uint64_t at) {
  return static_cast<uint16_t>(bytes[at] | bytes[at + 1] << 8);
}
// A word in two halves of what was read, so that a GPU waits for memory where
// the word is needed and not where it is asked for.
struct UnjoinedWord {
  uint32_t low;
  uint32_t high;
};
KDN_DEVICE UnjoinedWord LoadUnjoined(const uint8_t* bytes, uint64_t at) {
#if defined(__CUDACC__)
  const auto* words = reinterpret_cast<const uint32_t*>(bytes) + at / 4;
  return {__ldg(words), __ldg(words + 1)};
#else
  UnjoinedWord word{};
  std::memcpy(&word.low, bytes + at, sizeof(word.low));
  return word;
#endif
}
// `at` is where the word was loaded from, or a multiple of 4 away.
KDN_DEVICE uint32_t Join(const UnjoinedWord& word, uint64_t at) {
#if defined(__CUDACC__)
  return __funnelshift_r(word.low, word.high,
                         8 * static_cast<uint32_t>(at % 4));
#else
  static_cast<void>(at);
  return word.low;
#endif
}
KDN_DEVICE uint32_t LoadU32(const uint8_t* bytes, uint64_t at) {
  return Join(LoadUnjoined(bytes, at), at);
}

struct alignas(16) Bytes16 {
  uint32_t words[4];
};

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_DEVICE_H_
