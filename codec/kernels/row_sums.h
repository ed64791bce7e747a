#ifndef KDN_CODEC_KERNELS_ROW_SUMS_H_
#define KDN_CODEC_KERNELS_ROW_SUMS_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "codec/kernels/vector_kernels.h"
#include "kv/dtype.h"

// The difference of two rows. For the loops of codec/kernels/ only.
namespace kdn::codec::kernels {

inline constexpr uint32_t kMagnitude = 0x7fffffffu;

inline float AsFloat(float value) { return value; }
inline float AsFloat(uint16_t bf16) { return Bf16ToFloat(bf16); }

// Adds the squared differences of two rows to `squares`, and raises `largest`
// to the bits of the largest magnitude of a difference, lane by lane. Always
// inlined, so that it uses the vectors of its caller.
template <typename Real, typename Element>
inline __attribute__((always_inline)) void SumDifferences(
    const Element* __restrict a, const Element* __restrict b, size_t count,
    Real* __restrict squares, uint32_t* __restrict largest) {
  constexpr size_t kLanes = Differences::kLanes;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float difference = AsFloat(a[i + j]) - AsFloat(b[i + j]);
      squares[j] += Real{difference} * difference;
      largest[j] = std::max(largest[j],
                            std::bit_cast<uint32_t>(difference) & kMagnitude);
    }
  }
  for (size_t j = 0; i < count; ++i, ++j) {
    const float difference = AsFloat(a[i]) - AsFloat(b[i]);
    squares[j] += Real{difference} * difference;
    largest[j] =
        std::max(largest[j], std::bit_cast<uint32_t>(difference) & kMagnitude);
  }
}

}  // namespace kdn::codec::kernels

#endif  // KDN_CODEC_KERNELS_ROW_SUMS_H_
